"""Data fetched over http or https."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from modelbuild.errors import DigestMismatchError
from modelbuild.sources.source import Found, SourceAbsentError, SourceContext, publish
from modelbuild.spec.digest import Digest
from modelbuild.spec.logins import split_query
from modelbuild.spec.recipe import UrlData
from modelbuild.store.tree import shown, system_errors

if TYPE_CHECKING:
    from http.client import HTTPResponse
    from urllib.request import OpenerDirector

_SILENCE_SECONDS = 60.0
"""For how long a server may send nothing."""
_PROGRESS_SECONDS = 2.0
_CHUNK = 1 << 20
_HEADERS = {"User-Agent": "modelbuild"}
_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class UrlSource:
    """One file, or what one archive holds, as a fixed output."""

    name: str
    data: UrlData
    context: SourceContext
    fixed: ClassVar[bool] = True

    def find(self, expected: Digest | None) -> Found:
        from modelbuild.sources.archives import is_archive, unpack

        file = _file_name(self.data.url)
        unpacked = is_archive(file) if self.data.unpack is None else self.data.unpack
        with self.context.store.temporary("url") as work:
            folder, content = work / "file", work / "content"
            folder.mkdir()
            origin = self._fetch(folder / file)
            if not unpacked:
                return publish(folder, self.name, self.context, file=file, resolved=origin)
            unpack(folder / file, content, f"{self._title()}: {shown(file)}")
            return publish(content, self.name, self.context, resolved=origin)

    def _title(self) -> str:
        return f"{self.context.recipe.where(f'data.{self.name}')}: data '{self.name}'"

    def _fetch(self, target: Path) -> str:
        """Download it. What it is, for the lock: its SHA-256 and size."""
        import hashlib

        sha256, size = hashlib.sha256(), 0
        with closing(self._open()) as response:
            length = response.length
            said = time.monotonic()
            with system_errors(os.fsencode(target), "write"), target.open("xb") as file:
                for block in self._blocks(response):
                    sha256.update(block)
                    file.write(block)
                    size += len(block)
                    if time.monotonic() - said >= _PROGRESS_SECONDS:
                        said = time.monotonic()
                        self._say(size, length)
        if length is not None and size != length:
            raise self._absent(f"a sudden end after {size:,} of {length:,} bytes")
        found = sha256.hexdigest()
        if self.data.sha256 not in (None, found):
            raise DigestMismatchError(
                f"{self._title()} is not the file that the recipe names",
                facts=[
                    ("url", _shown_url(self.data.url)),
                    ("wanted", f"sha256:{self.data.sha256}"),
                    ("found", f"sha256:{found}"),
                ],
                hint="If the change is intended, write the new 'sha256' into the recipe.",
            )
        return f"sha256:{found} ({size:,} bytes)"

    def _open(self) -> HTTPResponse:
        from http.client import HTTPException
        from urllib.error import HTTPError, URLError
        from urllib.request import Request

        self.context.on_progress(f"data '{self.name}': fetching {_shown_url(self.data.url)}")
        try:
            request = Request(_ascii_url(self.data.url), headers=_HEADERS)  # noqa: S310 - of the recipe
            response = _opener().open(request, timeout=_SILENCE_SECONDS)
        except HTTPError as error:
            error.close()
            if 300 <= error.code < 400:
                raise self._absent("redirects that don't end at http or https") from error
            raise self._absent(f"{error.code} {error.reason}") from error
        except URLError as error:
            raise self._absent(_words(error.reason)) from error
        except (OSError, HTTPException, ValueError) as error:
            raise self._absent(_words(error)) from error
        return cast("HTTPResponse", response)

    def _blocks(self, response: HTTPResponse) -> Iterator[bytes]:
        from http.client import HTTPException

        while True:
            try:
                block = response.read(_CHUNK)
            except (OSError, HTTPException) as error:
                raise self._absent(_words(error)) from error
            if not block:
                return
            yield block

    def _say(self, size: int, length: int | None) -> None:
        whole = f" of {length // _MEGABYTE:,}" if length else ""
        self.context.on_progress(f"data '{self.name}': {size // _MEGABYTE:,}{whole} MB")

    def _absent(self, found: str) -> SourceAbsentError:
        return SourceAbsentError(
            f"{self._title()} can't be fetched",
            facts=[("url", _shown_url(self.data.url)), ("found", found)],
        )


def _opener() -> OpenerDirector:
    """Like urlopen, with the proxies of the environment, but for http and https only."""
    from urllib.error import URLError
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class Redirects(HTTPRedirectHandler):
        def redirect_request(
            self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
        ) -> Request | None:
            scheme = newurl.partition(":")[0].lower()
            if scheme not in ("http", "https") or (req.type, scheme) == ("https", "http"):
                fp.close()
                raise URLError(f"a redirect from {req.type} to {scheme}")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    return build_opener(Redirects)


def _ascii_url(url: str) -> str:
    from urllib.parse import quote, urlsplit, urlunsplit

    parts = urlsplit(url)
    path = quote(parts.path, safe="/%:=&+!$,;'@()*~")
    query = quote(parts.query, safe="/%:=&+!$,;'@()*~?")
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def _shown_url(url: str) -> str:
    start, has_query = split_query(url)
    return f"{start}?..." if has_query else start


def _file_name(url: str) -> str:
    from urllib.parse import unquote

    path = url.partition("?")[0].partition("://")[2].partition("/")[2]
    name = unquote(path.rpartition("/")[2])
    name = name.replace("/", "_").replace("\0", "_")
    return "data" if name in ("", ".", "..") else name


def _words(error: object) -> str:
    from http.client import IncompleteRead

    if isinstance(error, IncompleteRead):
        return "a sudden end"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
