"""What the lock says of a file besides its name: digest, size, licence.

The licence stands in the file's METADATA, which is read without fetching the file wherever
possible: cached by digest, beside it (PEP 658), from its end by range requests, and only then
from the whole file.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from modelbuild.environment.indexes import uv_variables
from modelbuild.errors import DigestMismatchError, ModelbuildError
from modelbuild.locking.index_access import IndexAccess
from modelbuild.locking.resolver import OfferedFile
from modelbuild.spec.logins import without_logins

_TAIL = 64 * 1024
"""Bytes of a wheel's end that hold the archive's index and, as a rule, METADATA."""
_LONGEST_LICENCE = 80
_RULES = 1
"""Raised when `licence` changes its mind, so that no cache holds the former answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFacts:
    sha256: str
    bytes: int
    licence: str


def describe_files(files: Sequence[OfferedFile], cache: Path | None) -> tuple[FileFacts, ...]:
    """Facts of each, in their order. `cache` is a folder of this module's own."""
    from concurrent.futures import ThreadPoolExecutor

    if not files:
        return ()
    access = IndexAccess(variables=uv_variables())
    with ThreadPoolExecutor(min(8, len(files))) as threads:
        return tuple(threads.map(lambda file: _describe(file, cache, access), files))


def _describe(file: OfferedFile, cache: Path | None, access: IndexAccess) -> FileFacts:
    cached = cache / f"{file.sha256}.{_RULES}.json" if cache and file.sha256 else None
    if cached and (known := _cached(cached)):
        return known
    try:
        facts = _read(file, access)
    except (OSError, EOFError, ValueError, LookupError, zipfile.BadZipFile, tarfile.TarError) as e:
        raise ModelbuildError(
            f"the metadata of {file.filename} can't be read",
            facts=[
                ("from", urlsplit(file.url).hostname or urlsplit(file.url).path),
                ("because", without_logins(str(e))),
            ],
        ) from None
    if cached:
        _write(cached, json.dumps(asdict(facts)))
    return facts


def _cached(path: Path) -> FileFacts | None:
    with suppress(OSError, ValueError, TypeError):
        return FileFacts(**json.loads(path.read_text(encoding="utf-8")))
    return None


def _write(path: Path, text: str) -> None:
    """A cache: without it, the same is read again, so an unwritable folder is no error."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as temporary:
            temporary.write(text)
        os.replace(temporary.name, path)


def _read(file: OfferedFile, access: IndexAccess) -> FileFacts:
    if urlsplit(file.url).scheme == "file":
        return _of_file(Path(url2pathname(urlsplit(file.url).path)), file)
    if file.sha256 and file.filename.endswith(".whl"):
        for ask in (_beside, _from_end):
            with suppress(OSError, LookupError, zipfile.BadZipFile):
                metadata, size = ask(file, access)
                return FileFacts(sha256=file.sha256, bytes=size, licence=licence(metadata))
    with tempfile.TemporaryDirectory(prefix="modelbuild-") as folder:
        path = Path(folder, file.filename)
        with access.open(file.url) as response, path.open("wb") as target:
            shutil.copyfileobj(response, target)
        return _of_file(path, file)


def _of_file(path: Path, file: OfferedFile) -> FileFacts:
    import hashlib

    with path.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    if file.sha256 not in (None, sha256):
        raise DigestMismatchError(
            f"digest mismatch in {file.filename}: it is not what the index says it is",
            facts=[("index", f"sha256:{file.sha256}"), ("found", f"sha256:{sha256}")],
        )
    metadata = _of_archive(path) if file.filename.endswith(".whl") else _of_sdist(path)
    return FileFacts(sha256=sha256, bytes=path.stat().st_size, licence=licence(metadata))


def _beside(file: OfferedFile, access: IndexAccess) -> tuple[str, int]:
    """PEP 658: the metadata as a file of its own."""
    with access.open(f"{file.url.partition('#')[0]}.metadata") as response:
        metadata = response.read().decode("utf-8", "replace")
    if file.bytes is not None:
        return metadata, file.bytes
    with access.open(file.url, method="HEAD") as response:
        return metadata, int(response.headers["Content-Length"] or _no_length())


def _from_end(file: OfferedFile, access: IndexAccess) -> tuple[str, int]:
    remote = _RemoteFile(file.url, access)
    return _of_archive(remote), remote.size


def _no_length() -> int:
    raise LookupError("the index does not say how large the file is")


class _RemoteFile(io.RawIOBase):
    """A file on a server that answers range requests; its end is fetched at once."""

    def __init__(self, url: str, access: IndexAccess) -> None:
        self._url, self._access = url, access
        self._position = 0
        self._tail, self.size = self._fetch(f"-{_TAIL}")

    def _fetch(self, span: str) -> tuple[bytes, int]:
        with self._access.open(self._url, {"Range": f"bytes={span}"}) as response:
            if response.status != 206:
                raise LookupError("the server answers no range requests")
            total = int(response.headers["Content-Range"].rpartition("/")[2])
            return response.read(), total

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError("before the start of the file")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, length: int = -1) -> bytes:
        start = self._position
        end = self.size if length < 0 else min(start + length, self.size)
        tail_start = self.size - len(self._tail)
        if start >= end:
            content = b""
        elif start >= tail_start:
            content = self._tail[start - tail_start : end - tail_start]
        else:
            content, _ = self._fetch(f"{start}-{end - 1}")
        self._position = end
        return content


def _of_archive(wheel: Path | _RemoteFile) -> str:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        return archive.read(name).decode("utf-8", "replace")


def _of_sdist(path: Path) -> str:
    """The PKG-INFO nearest to the top; older sdists may have none."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith("/PKG-INFO")]
            return archive.read(min(names, key=_depth)).decode("utf-8", "replace") if names else ""
    with tarfile.open(path) as tar:
        members = [m for m in tar.getmembers() if m.isfile() and m.name.endswith("/PKG-INFO")]
        if not members:
            return ""
        content = tar.extractfile(min(members, key=lambda member: _depth(member.name)))
        return content.read().decode("utf-8", "replace") if content else ""


def _depth(name: str) -> int:
    return name.count("/")


# -- licences -------------------------------------------------------------------------------------


def licence(metadata: str) -> str:
    """An SPDX expression where METADATA states one, else its own words, else `unknown`."""
    headers = HeaderParser().parsestr(metadata)
    classified = _classified(headers)
    candidates = (
        headers["License-Expression"],
        _SPDX.get(classified[0]) if len(classified) == 1 else None,
        _one_line(headers["License"]),
        ", ".join(classified),
    )
    return next((text.strip() for text in candidates if text and text.strip()), "unknown")


def _classified(headers: Message) -> list[str]:
    """The last words of the licence classifiers; those that only say `OSI Approved` say nothing."""
    classifiers = headers.get_all("Classifier", [])
    names = [c.rpartition(" :: ")[2].strip() for c in classifiers if c.startswith("License ::")]
    return sorted({name for name in names if name not in ("OSI Approved", "License")})


def _one_line(text: str | None) -> str | None:
    text = (text or "").strip()
    if "\n" in text or len(text) > _LONGEST_LICENCE or text.lower() in ("unknown", "none"):
        return None
    return text


_SPDX = {
    "BSD Zero Clause License (0BSD)": "0BSD",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "Eclipse Public License 1.0 (EPL-1.0)": "EPL-1.0",
    "Eclipse Public License 2.0 (EPL-2.0)": "EPL-2.0",
    "European Union Public Licence 1.2 (EUPL 1.2)": "EUPL-1.2",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "zlib/libpng License": "Zlib",
}
"""Classifiers that name one licence. `BSD License` and `Apache Software License` name several."""
