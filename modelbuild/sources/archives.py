"""Unpack archives that nobody vouches for.

1. Files are written by us, into folders that we made, onto names that were not there. 2. Links
are made last, so that nothing is written through them, and must stay inside. 3. Whatever is
neither file, folder nor link is refused. 4. What comes out is bounded. Owners, times and modes
but the executable bit are dropped.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from modelbuild.errors import ModelbuildError
from modelbuild.store.tree import cannot, shown, stays_inside, system_errors

if TYPE_CHECKING:
    import tarfile
    import zipfile

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
_CHUNK = 1 << 20
_LONGEST_PATH = 4096
_ZIP = b"PK"
_GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"
_ENCRYPTED, _UTF8 = 0x1, 0x800
_UNIX = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What an archive may expand to."""

    members: int = 10_000_000
    bytes: int = 4 << 40
    ratio: int = 1000
    """Of the bytes that come out to those of the archive."""
    free_bytes: int = 64 << 20
    """What may come out whatever the ratio."""


DEFAULT_LIMITS = Limits()


def is_archive(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def unpack(archive: Path, target: Path, title: str, limits: Limits = DEFAULT_LIMITS) -> None:
    """Unpack into the new folder `target`. The content says of which kind the archive is.

    Raises ModelbuildError, which begins with `title`, for archives that are damaged, encrypted
    or too large once unpacked, or that hold a name twice, a name or a link that leads out, a
    device, a fifo or a socket.
    """
    with system_errors(os.fsencode(archive)), archive.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(6)
    with system_errors(os.fsencode(target), "write"):
        target.mkdir()
    unpacking = _Unpacking(os.fsencode(target), title, size, limits)
    with _damage(title):
        if start.startswith(_ZIP):
            _unpack_zip(archive, unpacking)
        else:
            with _decoded(archive, start) as file:
                _unpack_tar(file, unpacking)
    unpacking.make_links()


@contextmanager
def _damage(title: str) -> Iterator[None]:
    """What the decoders raise, as an error of ours."""
    import struct
    import tarfile
    import zipfile
    import zlib
    from lzma import LZMAError

    try:
        yield
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        LZMAError,
        struct.error,
        EOFError,
        OSError,
        RuntimeError,  # NotImplementedError and RecursionError too
        ValueError,
    ) as error:
        raise ModelbuildError(
            f"{title} can't be unpacked: it is damaged, or not an archive",
            facts=[("wanted", ", ".join(SUFFIXES)), ("found", str(error) or "a sudden end")],
        ) from error


@dataclass(slots=True)
class _Unpacking:
    """One archive on its way into one folder."""

    top: bytes
    title: str
    archive_bytes: int
    limits: Limits
    members: int = 0
    written: int = 0
    links: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Paths and targets of the links still to be made."""

    def folder(self, name: bytes) -> None:
        self._make_folder(self._place(name))

    def file(self, name: bytes, content: IO[bytes], *, executable: bool) -> None:
        path = self._place(name)
        self._make_folder(os.path.dirname(path))
        descriptor = self._create(path, executable=executable)
        try:
            while block := content.read(_CHUNK):
                self.count(len(block))
                with system_errors(path, "write"):
                    while block:
                        block = block[os.write(descriptor, block) :]
        finally:
            os.close(descriptor)

    def hard_link(self, name: bytes, target: bytes) -> None:
        """A member that says it is the same file as an earlier one: a copy of that."""
        source = os.path.join(self.top, _parts(target))
        if b".." in target.split(b"/") or not os.path.isfile(source):
            raise self.refuse(name, "link to no earlier file")
        with open(source, "rb") as content:
            executable = bool(os.fstat(content.fileno()).st_mode & stat.S_IXUSR)
            self.file(name, content, executable=executable)

    def link(self, name: bytes, target: bytes) -> None:
        if not target or b"\0" in target:
            raise self.refuse(name, "link without a target")
        self.links.append((self._place(name), target))

    def make_links(self) -> None:
        """Last of all, so that nothing was written through them."""
        for path, target in self.links:
            self._make_folder(os.path.dirname(path))
            place = os.path.join(self.top, path)
            if os.path.lexists(place):
                raise self.refuse(path, "name that comes twice")
            with system_errors(path, "write"):
                os.symlink(target, place)
        for path, _ in self.links:
            if not stays_inside(self.top, path):
                raise self.refuse(path, "link that leads out")

    def count(self, size: int) -> None:
        """Bytes that came out of the archive, before they are kept."""
        self.written += size
        limits = self.limits
        if self.written > limits.bytes:
            raise self._too_large(f"more than {limits.bytes:,} bytes")
        if self.written > max(limits.free_bytes, limits.ratio * self.archive_bytes):
            raise self._too_large(f"more than {limits.ratio:,} times the size of the archive")

    def refuse(self, name: bytes, problem: str) -> ModelbuildError:
        return ModelbuildError(
            f"{self.title} is not safe to unpack", facts=[(problem, shown(name))]
        )

    def _too_large(self, found: str) -> ModelbuildError:
        return ModelbuildError(
            f"{self.title} expands too far to be unpacked",
            facts=[("found", found)],
            hint="If that is as it should be, unpack it by hand, and name the folder with "
            "'path' or 'location'.",
        )

    def _place(self, name: bytes) -> bytes:
        """The path of a member, checked; empty for the top itself."""
        self.members += 1
        if self.members > self.limits.members:
            raise self._too_large(f"more than {self.limits.members:,} members")
        if name.startswith(b"/"):
            raise self.refuse(name, "absolute name")
        if b".." in name.split(b"/"):
            raise self.refuse(name, "name that leads out")
        if b"\0" in name:
            raise self.refuse(name, "name with a zero byte")
        return _parts(name)

    def _make_folder(self, path: bytes) -> None:
        try:
            os.makedirs(os.path.join(self.top, path), exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise self.refuse(path, "name that comes twice") from error
        except OSError as error:
            raise cannot("write", path, error) from error

    def _create(self, path: bytes, *, executable: bool) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        mode = 0o777 if executable else 0o666
        try:
            return os.open(os.path.join(self.top, path), flags, mode)
        except FileExistsError as error:
            raise self.refuse(path or b".", "name that comes twice") from error
        except OSError as error:
            raise cannot("write", path, error) from error


def _parts(name: bytes) -> bytes:
    return b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))


def _unpack_zip(archive: Path, unpacking: _Unpacking) -> None:
    import zipfile

    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            # What is not marked as UTF-8 was decoded as this code page, whatever it was.
            coding = "utf-8" if member.flag_bits & _UTF8 else "cp437"
            _unpack_zipped(members, member, member.orig_filename.encode(coding), unpacking)


def _unpack_zipped(
    members: zipfile.ZipFile, member: zipfile.ZipInfo, name: bytes, unpacking: _Unpacking
) -> None:
    mode = member.external_attr >> 16 if member.create_system == _UNIX else 0
    if member.flag_bits & _ENCRYPTED:
        raise unpacking.refuse(name, "encrypted member")
    if name.endswith(b"/") or stat.S_ISDIR(mode):
        unpacking.folder(name)
    elif stat.S_ISLNK(mode):
        with members.open(member) as content:
            unpacking.link(name, content.read(_LONGEST_PATH))
    elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
        with members.open(member) as content:
            unpacking.file(name, content, executable=bool(mode & stat.S_IXUSR))
    else:
        raise unpacking.refuse(name, "neither file, folder nor link")


class _Decoded:
    """The decompressed bytes of a tar archive, read within bounds."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.last = b""
        """What was read last."""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _CHUNK:  # `tarfile` reads headers of any size at once
            raise ValueError(f"a header of {size:,} bytes")
        self.last = self._stream.read(size)
        return self.last

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(position, whence)

    def tell(self) -> int:
        return self._stream.tell()


@contextmanager
def _decoded(archive: Path, start: bytes) -> Iterator[_Decoded]:
    import bz2
    import gzip
    import lzma

    openers: dict[bytes, Callable[..., Any]] = {
        _GZIP: gzip.open,
        _BZIP2: bz2.open,
        _XZ: lzma.open,
        b"": open,
    }
    opener = next(openers[magic] for magic in openers if start.startswith(magic))
    with opener(archive, "rb") as stream:
        yield _Decoded(stream)


def _unpack_tar(stream: _Decoded, unpacking: _Unpacking) -> None:
    import tarfile

    with tarfile.open(fileobj=cast("Any", stream), mode="r:", encoding="utf-8") as members:
        while member := members.next():
            cast("Any", members).members.clear()  # it would keep them all
            _unpack_tarred(members, member, unpacking)
    # `tarfile` takes a damaged header for the end.
    if stream.last.strip(b"\0"):
        raise ValueError("a damaged header")
    # Only who reads to the end has the decoder compare its checksum.
    while block := stream.read(_CHUNK):
        unpacking.count(len(block))


def _unpack_tarred(
    members: tarfile.TarFile, member: tarfile.TarInfo, unpacking: _Unpacking
) -> None:
    name = member.name.encode("utf-8", "surrogateescape")
    target = member.linkname.encode("utf-8", "surrogateescape")
    if member.isdir():
        unpacking.folder(name)
    elif member.issym():
        unpacking.link(name, target)
    elif member.islnk():
        unpacking.hard_link(name, target)
    elif content := members.extractfile(member):
        with content:
            unpacking.file(name, content, executable=bool(member.mode & stat.S_IXUSR))
    else:
        raise unpacking.refuse(name, "neither file, folder nor link")
