"""Trees on disk and their canonical digest.

What counts is names (as bytes), contents, the executable bit, links inside the tree, and
folders that are empty. Owners, times and other modes do not.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from modelbuild.errors import ModelbuildError
from modelbuild.spec.digest import Digest

FILE, EXECUTABLE, LINK, FOLDER = "f", "x", "l", "d"

_HEADER = b"modelbuild tree 1\n"
OPEN_TO_READ = (
    os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
)  # a file that became a fifo must not block us
CHUNK = 1 << 20
_BUFFER = 16 << 20
_LARGE = 128 << 20
"""Bytes from which on a mapping in a process of its own is quicker than reading."""
_HOPS = 40
"""Links that the kernel follows in one path."""


class Entry(NamedTuple):
    path: bytes
    """Relative, with `/`."""
    kind: str
    """`f`, `x` (executable), `l` (link) or `d` (an empty folder)."""
    digest: str
    """Hexadecimal BLAKE3 of the content, or of the link's target."""
    size: int
    """Bytes; of a link, those of its target's name."""


@dataclass(frozen=True, slots=True)
class Tree:
    entries: tuple[Entry, ...]
    """Sorted by path."""
    digest: Digest
    files: int
    bytes: int

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Tree:
        ordered = tuple(sorted(entries))
        sizes = [entry.size for entry in ordered if entry.kind in "fx"]
        return cls(ordered, tree_digest(ordered), len(sizes), sum(sizes))


def tree_digest(entries: Iterable[Entry]) -> Digest:
    """The digest of a tree, from its entries in any order.

    Each path is preceded by its length, so no two trees give the same bytes.
    """
    parts = [_HEADER]
    for path, kind, digest, _ in sorted(entries):
        parts.append(f"{kind}{digest}{len(path)}:".encode() + path)
    return Digest(blake3(b"".join(parts)).hexdigest())


def scan_tree(root: Path) -> Tree:
    """The tree below the folder `root`.

    Raises ModelbuildError, naming the file, for links that are absolute or lead out, for
    sockets, devices and fifos, for what can't be read, and for what changes meanwhile.
    """
    top = os.fsencode(root)
    return Tree.of(scan_entry(top, relative, kind) for relative, kind, _ in walk(top))


def scan_file(path: Path) -> Tree:
    """The tree that holds just this file (links are followed), under its own name."""
    name = os.fsencode(path.name)
    return Tree.of([hash_file(os.fsencode(path), name)])


def walk(top: bytes) -> Iterator[tuple[bytes, str, os.DirEntry[bytes] | None]]:
    """Relative path and kind (`f`, `l` or `d`) of all files, links and empty folders.

    In an order that is always the same, but not sorted. Empty folders come without an item.
    """
    pending = [b""]
    while pending:
        folder = pending.pop()
        path = os.path.join(top, folder)
        with system_errors(path), os.scandir(path) as found:
            items = sorted(found, key=_name)
        for item in items:
            relative = folder + item.name
            if item.is_file(follow_symlinks=False):
                yield relative, FILE, item
            elif item.is_symlink():
                yield relative, LINK, item
            elif item.is_dir(follow_symlinks=False):
                pending.append(relative + b"/")
            else:
                raise special_file(item.path)
        if not items and folder:
            yield folder[:-1], FOLDER, None


def _name(item: os.DirEntry[bytes]) -> bytes:
    return item.name


def scan_entry(top: bytes, relative: bytes, kind: str) -> Entry:
    """The entry of one path that `walk` found."""
    if kind == FILE:
        return hash_file(b"%b/%b" % (top, relative), relative)
    if kind == LINK:
        target = read_link(top, relative)
        return Entry(relative, LINK, blake3(target).hexdigest(), len(target))
    return Entry(relative, FOLDER, blake3().hexdigest(), 0)


def hash_file(path: bytes, name: bytes) -> Entry:
    """The entry of one file, under the given name."""
    try:
        descriptor = os.open(path, OPEN_TO_READ)
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise special_file(path)
            digest = _content_digest(descriptor, path, before.st_size)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:  # no `system_errors`, which costs a tenth of a small file's time
        raise cannot("read", path, error) from error
    if moved(before, after):
        raise changed_while_read(path)
    kind = EXECUTABLE if before.st_mode & stat.S_IXUSR else FILE
    return Entry(name, kind, digest, before.st_size)


def _content_digest(descriptor: int, path: bytes, size: int) -> str:
    if size >= _LARGE and (digest := _mapped_digest(descriptor)):
        return digest
    if size < CHUNK:
        # One byte more than expected, so that a small file takes one read and shows if it grew.
        content = os.read(descriptor, size + 1)
        if len(content) != size:
            raise changed_while_read(path)
        return blake3(content).hexdigest()
    hasher = blake3(max_threads=blake3.AUTO)
    buffer = memoryview(bytearray(min(size, _BUFFER)))
    found = 0
    while count := os.readv(descriptor, [buffer]):
        hasher.update(buffer[:count])
        found += count
    if found != size:
        raise changed_while_read(path)
    return hasher.hexdigest()


_MAPPED = """
import mmap, os, sys
sys.path.append(sys.argv[1])
from blake3 import blake3
window, size = int(sys.argv[2]), os.fstat(0).st_size
hasher = blake3(max_threads=blake3.AUTO)
for start in range(0, size, window):
    with mmap.mmap(0, min(window, size - start), access=mmap.ACCESS_READ, offset=start) as part:
        hasher.update(part)
print(hasher.hexdigest())
"""


def _mapped_digest(descriptor: int) -> str | None:
    """The digest of an open file, hashed by a process of its own; None where that fails.

    Mapping is quicker than reading, but whoever maps a file dies when it is truncated.
    """
    import subprocess
    import sys

    packages = os.path.dirname(os.path.dirname(sys.modules[blake3.__module__].__file__ or ""))
    hashed = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _MAPPED, packages, str(_LARGE)],
        stdin=descriptor,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return hashed.stdout.decode().strip() if hashed.returncode == 0 else None


def moved(before: os.stat_result, after: os.stat_result) -> bool:
    if before.st_nlink > 1 or after.st_nlink > 1:
        # A link made or removed elsewhere, as uv does with its cache, moves the change time.
        return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def read_link(top: bytes, relative: bytes) -> bytes:
    """The target of a link. Raises ModelbuildError where it leads out of `top`."""
    path = os.path.join(top, relative)
    with system_errors(path):
        target = os.readlink(path)
        if not stays_inside(top, relative):
            raise ModelbuildError(
                f"a link leads out of its folder: {shown(path)}",
                facts=[("target", shown(target)), ("wanted", "a relative path inside the folder")],
            )
    return target


def stays_inside(top: bytes, relative: bytes) -> bool:
    """Whether following a link never leaves `top`, on the way either.

    Component by component as the kernel does, because `x/..` is not where it looks to be where
    `x` is a link. A loop of links stays inside.
    """
    pending = relative.split(b"/")[::-1]
    real: list[bytes] = []
    hops = 0
    while pending and hops <= _HOPS:
        part = pending.pop()
        if part == b"..":
            if not real:
                return False
            real.pop()
        elif part not in (b"", b"."):
            real.append(part)
            here = os.path.join(top, *real)
            if os.path.islink(here):
                hops += 1
                real.pop()
                target = os.readlink(here)
                if target.startswith(b"/"):
                    return False
                pending += target.split(b"/")[::-1]
    return True


@contextlib.contextmanager
def system_errors(path: bytes, act: str = "read") -> Iterator[None]:
    """Turn what the system says about `path` into an error of ours."""
    try:
        yield
    except OSError as error:
        raise cannot(act, path, error) from error


def cannot(act: str, path: bytes, error: OSError) -> ModelbuildError:
    return ModelbuildError(f"cannot {act} {shown(path)}: {error.strerror}")


def changed_while_read(path: bytes) -> ModelbuildError:
    return ModelbuildError(
        f"changed while it was read: {shown(path)}",
        hint="Wait until nothing writes to it, then run the command again.",
    )


def special_file(path: bytes) -> ModelbuildError:
    return ModelbuildError(
        f"neither a file, a folder nor a link: {shown(path)}",
        hint="Sockets, devices and fifos have no content that could be locked; remove it.",
    )


def shown(path: bytes | str) -> str:
    """A path as it can be printed: what is not UTF-8, or not printable, is escaped."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
