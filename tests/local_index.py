"""A package index of one's own: tiny wheels made on the fly, served as real indexes serve theirs.

    make_wheel(folder, "a", "1.0", requires=["b>=2"])
    make_wheel(folder, "b", "2.0", tag="cp311-cp311-manylinux_2_17_x86_64")
    with LocalIndex(folder) as index:
        only_packages_from(monkeypatch, index_url=index.url)      # PEP 503 and 691
    only_packages_from(monkeypatch, find_links=folder)            # the folder, without a server

Wheels have the same bytes each time they are made. Files may be added while the index runs.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import threading
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest

_JSON = "application/vnd.pypi.simple.v1+json"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    *,
    requires: Sequence[str] = (),
    tag: str = "py3-none-any",
    files: Mapping[str, str | bytes] = {},
    licence: str | None = "MIT",
    headers: Sequence[str] = (),
    metadata_file: bool = False,
) -> Path:
    """A wheel in `folder`.

    `files` are its contents by path; without any it holds one module. Scripts are made with
    `NAME.dist-info/entry_points.txt` or `NAME.data/scripts/...` among them (see `distribution`).
    `licence` becomes License-Expression; other ways of saying it, extras (`Provides-Extra: x`)
    and Requires-Python go into `headers`. `metadata_file` adds the METADATA beside it (PEP 658).
    """
    stem = distribution(name, version)
    metadata = _metadata(name, version, requires, licence, headers)
    contents: dict[str, str | bytes] = dict(
        files or {f"{stem.split('-')[0].lower()}.py": f"version = {version!r}\n"}
    )
    contents[f"{stem}.dist-info/METADATA"] = metadata
    contents[f"{stem}.dist-info/WHEEL"] = _wheel_file(tag)
    contents[f"{stem}.dist-info/RECORD"] = _record(contents, f"{stem}.dist-info/RECORD")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in contents.items():
            archive.writestr(_zip_entry(member), content)
    if metadata_file:
        path.with_name(path.name + ".metadata").write_text(metadata, encoding="utf-8")
    return path


def make_sdist(
    folder: Path,
    name: str,
    version: str,
    *,
    requires: Sequence[str] = (),
    licence: str | None = "MIT",
) -> Path:
    """A source distribution with static metadata, whose build backend is its own few lines."""
    stem = distribution(name, version)
    module = stem.split("-")[0].lower()
    contents = {
        "PKG-INFO": _metadata(name, version, requires, licence, ()),
        "pyproject.toml": _pyproject(name, version, requires),
        "backend.py": _BACKEND.format(stem=stem, module=module),
        f"{module}.py": f"version = {version!r}\n",
    }
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in contents.items():
            entry = tarfile.TarInfo(f"{stem}/{member}")
            entry.size = len(content.encode())
            entry.mtime = 315_532_800  # 1980: a zip archive, such as a wheel, holds nothing older
            archive.addfile(entry, io.BytesIO(content.encode()))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.tar.gz"
    path.write_bytes(gzip.compress(raw.getvalue(), mtime=0))
    return path


def distribution(name: str, version: str) -> str:
    """`NAME-VERSION` as it stands in file names, before `.dist-info` for one."""
    return f"{re.sub(r'[-_.]+', '_', name)}-{version}"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def only_packages_from(
    monkeypatch: pytest.MonkeyPatch,
    *,
    index_url: str | None = None,
    extra_index_url: str | None = None,
    find_links: Path | None = None,
    uv_cache: Path | None = None,
) -> None:
    """pip's and uv's configuration for this test: these places, nothing of the machine's own.

    Without `index_url` there is an index that can't be reached.
    """
    for variable in list(os.environ):
        if variable.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(variable)
    settings = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_NO_CONFIG": "1",
        "UV_HTTP_RETRIES": "0",
        "PIP_RETRIES": "0",
        "PIP_INDEX_URL": index_url or "http://127.0.0.1:9/simple/",
        "PIP_EXTRA_INDEX_URL": extra_index_url,
        "PIP_FIND_LINKS": str(find_links) if find_links else None,
        "UV_CACHE_DIR": str(uv_cache) if uv_cache else None,
    }
    for name, value in settings.items():
        if value is not None:
            monkeypatch.setenv(name, value)


class LocalIndex:
    """Serves the wheels and sdists of `folder` over HTTP on the loopback, in a thread of its own.

    With `user` and `password` it asks for basic authentication, for files too. `requests` lists
    the (method, path) pairs so far, `sent` counts the bytes of the answers. `ranges=False` makes
    it ignore Range, as simple servers do; `hashes=False` leaves out the digests; files are asked
    for at the URL `redirect` where it is given. `authorizations` are the headers that were sent.
    """

    def __init__(
        self,
        folder: Path,
        *,
        user: str | None = None,
        password: str = "",
        ranges: bool = True,
        hashes: bool = True,
        redirect: str | None = None,
    ) -> None:
        self.folder = folder
        self.ranges = ranges
        self.hashes = hashes
        self.redirect = redirect
        self.requests: list[tuple[str, str]] = []
        self.sent = 0
        self.authorizations: set[str | None] = set()
        self._user, self._password = user, password
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """Of the simple index, without credentials."""
        return f"http://127.0.0.1:{self._server.server_port}/simple/"

    @property
    def url_with_credentials(self) -> str:
        secret = f"{quote(self._user or '', safe='')}:{quote(self._password, safe='')}"
        return self.url.replace("://", f"://{secret}@")

    @property
    def authorization(self) -> str | None:
        if self._user is None:
            return None
        return "Basic " + base64.b64encode(f"{self._user}:{self._password}".encode()).decode()

    def distributions(self) -> list[Path]:
        return sorted(p for p in self.folder.iterdir() if p.suffix in (".whl", ".gz"))

    def __enter__(self) -> LocalIndex:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, index: LocalIndex, *arguments: Any) -> None:
        self._index = index
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self._index.requests.append((self.command, self.path))
        self._index.authorizations.add(self.headers["Authorization"])
        path = unquote(urlsplit(self.path).path)
        if self._index.authorization not in (None, self.headers["Authorization"]):
            self._send(401, b"", {"WWW-Authenticate": 'Basic realm="index"'})
        elif path.startswith("/simple/"):
            self._listing(path.removeprefix("/simple/").strip("/"))
        elif path.startswith("/files/") and self._index.redirect:
            self._send(302, b"", {"Location": self._index.redirect + Path(path).name})
        elif (
            path.startswith("/files/") and (file := self._index.folder / Path(path).name).is_file()
        ):
            self._file(file)
        else:
            self._send(404, b"")

    do_HEAD = do_GET  # noqa: N815

    def _listing(self, name: str) -> None:
        files = [p for p in self._index.distributions() if _project(p) == name]
        if not files:
            self._send(404, b"")
        elif _JSON in self.headers.get("Accept", ""):
            self._send(200, _json_listing(name, files, self._index.hashes), {"Content-Type": _JSON})
        else:
            self._send(200, _html_listing(files, self._index.hashes), {"Content-Type": "text/html"})

    def _file(self, file: Path) -> None:
        content = file.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        headers = {}
        if self._index.hashes:  # the listing's digest tells a new file from the cached one
            headers["Cache-Control"] = "max-age=31536000, immutable"
        if self._index.ranges:
            headers["Accept-Ranges"] = "bytes"
        if not wanted or not self._index.ranges:
            self._send(200, content, headers)
            return
        first, last = wanted.groups()
        start = int(first) if first else max(0, len(content) - int(last))
        end = min(int(last), len(content) - 1) if first and last else len(content) - 1
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self._send(206, content[start : end + 1], headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        for key, value in {"Cache-Control": "no-cache", **headers}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self._index.sent += len(body)
            with suppress(ConnectionError):
                self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def _project(path: Path) -> str:
    return re.sub(r"[-_.]+", "-", path.name.split("-")[0]).lower()


def _html_listing(files: Sequence[Path], hashes: bool) -> bytes:
    links = []
    for path in files:
        fragment = f"#sha256={sha256(path)}" if hashes else ""
        separate = ' data-core-metadata="true"' if _metadata_beside(path).is_file() else ""
        links.append(f'<a href="/files/{quote(path.name)}{fragment}"{separate}>{path.name}</a><br>')
    return f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()


def _json_listing(name: str, files: Sequence[Path], hashes: bool) -> bytes:
    entries = [
        {
            "filename": path.name,
            "url": f"/files/{quote(path.name)}",
            "hashes": {"sha256": sha256(path)} if hashes else {},
            "size": path.stat().st_size,
            "upload-time": datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime(
                "%Y-%m-%dT%H:%M:%S.%fZ"
            ),
            "core-metadata": _metadata_beside(path).is_file(),
        }
        for path in files
    ]
    return json.dumps({"meta": {"api-version": "1.1"}, "name": name, "files": entries}).encode()


def _metadata_beside(path: Path) -> Path:
    return path.with_name(path.name + ".metadata")


def _metadata(
    name: str, version: str, requires: Sequence[str], licence: str | None, headers: Sequence[str]
) -> str:
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
    lines += [f"License-Expression: {licence}"] if licence else []
    lines += headers
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    return "\n".join(lines) + "\n\nMade for a test.\n"


def _wheel_file(tag: str) -> str:
    python, abi, platforms = tag.split("-")
    tags = [f"Tag: {python}-{abi}-{platform}" for platform in platforms.split(".")]
    pure = "true" if platforms == "any" else "false"
    head = ["Wheel-Version: 1.0", "Generator: modelbuild-tests", f"Root-Is-Purelib: {pure}"]
    return "\n".join([*head, *tags]) + "\n"


def _record(contents: Mapping[str, str | bytes], own_path: str) -> str:
    lines = []
    for path, content in contents.items():
        data = content.encode() if isinstance(content, str) else content
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(data)}")
    return "\n".join([*lines, f"{own_path},,"]) + "\n"


def _zip_entry(member: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(member, date_time=_EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (0o755 if ".data/scripts/" in member else 0o644) << 16
    return entry


def _pyproject(name: str, version: str, requires: Sequence[str]) -> str:
    return (
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f"[project]\nname = {name!r}\nversion = {version!r}\n"
        f"dependencies = {list(requires)!r}\n"
    )


_BACKEND = """\
import pathlib, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "{stem}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as archive:
        archive.write("{module}.py")
        archive.write("PKG-INFO", "{stem}.dist-info/METADATA")
        wheel = "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        archive.writestr("{stem}.dist-info/WHEEL", wheel)
        record = ["{module}.py,,", "{stem}.dist-info/METADATA,,", "{stem}.dist-info/WHEEL,,"]
        record.append("{stem}.dist-info/RECORD,,")
        archive.writestr("{stem}.dist-info/RECORD", "\\n".join(record))
    return name
"""
