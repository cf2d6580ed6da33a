"""Digests of data in place, remembered for as long as no file's status moved.

A status is kind, size, mtime, ctime, inode and mode; ctime catches an edit whose mtime was put
back. Two kinds of files are not trusted, as in git's index: those that changed so shortly
before they were looked at that a second change could get the same time, and those whose ctime
lies in the future, because a clock that was set back may come by it again.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from modelbuild.spec.digest import Digest
from modelbuild.store.tree import FILE, FOLDER, Entry, Tree, scan_entry, system_errors, walk

_MAGIC = b"modelbuild stat cache 1\n"
_GRANULARITY_NS = 2_000_000_000
"""Of the coarsest clock of a file system in use: two seconds, on FAT."""

_STATUS = struct.Struct("<cqqqQI")
_CTIME = struct.Struct("<q")
_CTIME_AT = 17
_EMPTY_FOLDER = _STATUS.pack(FOLDER.encode(), 0, 0, 0, 0, 0)
_NOT_TRUSTED = bytes(_STATUS.size)
_HEAD = struct.Struct("<32s32s32sQQ")
"""Signature, tree digest, digest of the records, files, bytes."""
_CHECKED_MAGIC_BYTES = len(_MAGIC) + 32
_HEAD_BYTES = _CHECKED_MAGIC_BYTES + _HEAD.size
_RECORD = struct.Struct(f"<I{_STATUS.size}sc32sQ")
"""Length of the path, status, kind, digest, size; then comes the path."""

_Statuses = list[tuple[bytes, bytes]]
"""Relative path and packed status."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedTree:
    digest: Digest
    files: int
    bytes: int
    signature: str
    """Over every file's status, taken before the contents were read."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Only some files of a folder."""

    name: str
    """Says how they were chosen: what is remembered belongs to it."""
    paths: tuple[bytes, ...]
    """Relative, sorted."""


@dataclass(frozen=True, slots=True)
class StatCache:
    """The cache in one folder. To lose it costs time only."""

    folder: Path
    clock: Callable[[], int] = time.time_ns

    @classmethod
    def of(cls, store: Path) -> StatCache:
        """The cache of the store at `store`."""
        return cls(store / "stat-cache")

    def tree(
        self, root: Path, *, keep: Digest | None = None, only: Selection | None = None
    ) -> CachedTree:
        """The tree of a folder, or the tree that holds just one file (see `scan_file`).

        Reads only files whose status moved. Where that gives another tree than the last time,
        and that was `keep`, then the last time's is kept for `changes`.
        """
        now = self.clock()
        statuses = _look(root, only)
        signature = _signature(statuses)
        place = self._place(root, only)
        head = _read_head(place)
        if head is None or head.signature != signature:
            keep_last = head is not None and head.digest == keep
            records = _records(root, statuses, _read_records(place))
            head = _renew(place, records, keep_last, trusted_before=now - _GRANULARITY_NS)
        return CachedTree(
            digest=head.digest, files=head.files, bytes=head.size, signature=signature.hex()
        )

    def entries(self, root: Path, only: Selection) -> list[Entry]:
        """The entries of the chosen files, in their order; read where a status moved."""
        now = self.clock()
        statuses = _look(root, only)
        place = self._place(root, only)
        records = _records(root, statuses, _read_records(place))
        head = _read_head(place)
        if head is None or head.signature != _signature(statuses):
            _renew(place, records, False, trusted_before=now - _GRANULARITY_NS)
        return [record.entry for record in records]

    def signature(self, root: Path) -> str:
        """The signature alone: only statuses are read, nothing is remembered."""
        return _signature(_look(root, None)).hex()

    def trusts(self, root: Path, signature: str | None) -> bool:
        """Whether this signature was seen when no file was so new that it could change unseen."""
        head = _read_head(self._place(root, None))
        return head is not None and head.signature.hex() == signature

    def changes(
        self, root: Path, since: Digest, *, only: Selection | None = None
    ) -> list[bytes] | None:
        """Paths that differ between the tree last seen and an earlier one, sorted.

        None where the earlier one is not known.
        """
        place = self._place(root, only)
        before = _read_head(_previous(place))
        if before is None or before.digest != since:
            return None
        old, new = _read_records(_previous(place)), _read_records(place)
        return sorted(
            path
            for path in old.keys() | new.keys()
            if path not in old or path not in new or old[path].entry != new[path].entry
        )

    def _place(self, root: Path, only: Selection | None) -> Path:
        name = os.path.abspath(root) + (f"\0{only.name}" if only else "")
        return self.folder / blake3(os.fsencode(name)).hexdigest()[:40]


def _previous(place: Path) -> Path:
    return place.with_name(f"{place.name}.previous")


def _look(root: Path, only: Selection | None) -> _Statuses:
    """The statuses of everything in a tree, in an order that is always the same."""
    top = os.fsencode(root)
    with system_errors(top):
        status = os.stat(top)
        if not root.is_dir():
            return [(os.fsencode(root.name), _pack(FILE, status))]
        if only:
            return [(path, _pack(FILE, os.lstat(os.path.join(top, path)))) for path in only.paths]
        # Statuses are read here, and not by `walk`, because only the cache needs them.
        return [
            (path, _pack(kind, item.stat(follow_symlinks=False)) if item else _EMPTY_FOLDER)
            for path, kind, item in walk(top)
        ]


def _pack(kind: str, s: os.stat_result) -> bytes:
    return _STATUS.pack(kind.encode(), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_mode)


def _signature(statuses: _Statuses) -> bytes:
    # No path holds a zero byte, and statuses have one length: no two lists give the same bytes.
    return blake3(b"".join([path + b"\0" + status for path, status in statuses])).digest()


class _Head(NamedTuple):
    signature: bytes
    """Zeros where a file is not trusted."""
    digest: Digest
    files: int
    size: int
    records: bytes = b""
    """Digest of the records as they are in the file."""


class _Record(NamedTuple):
    status: bytes
    entry: Entry

    def if_older(self, trusted_before: int) -> _Record:
        """Without the status where a second change could leave that as it is."""
        (ctime,) = _CTIME.unpack_from(self.status, _CTIME_AT)
        return self if ctime < trusted_before else _Record(_NOT_TRUSTED, self.entry)


def _records(root: Path, statuses: _Statuses, known: dict[bytes, _Record]) -> list[_Record]:
    """What is known of the files whose status did not move, and the others read again."""
    top = os.fsencode(root if root.is_dir() else root.parent)
    records = []
    for path, status in statuses:
        record = known.get(path)
        if record is None or record.status != status:
            record = _Record(status, scan_entry(top, path, chr(status[0])))
        records.append(record)
    return records


def _renew(place: Path, records: list[_Record], keep_last: bool, trusted_before: int) -> _Head:
    """Remember the records, less the statuses that can't be trusted."""
    tree = Tree.of(record.entry for record in records)
    statuses = [(record.entry.path, record.status) for record in records]
    older = [record.if_older(trusted_before) for record in records]
    trusted = all(record.status != _NOT_TRUSTED for record in older)
    signature = _signature(statuses) if trusted else bytes(32)
    head = _Head(signature, tree.digest, files=tree.files, size=tree.bytes)
    last = _read_head(place)
    if keep_last and last and last.digest != head.digest:
        with contextlib.suppress(OSError):
            place.replace(_previous(place))
    _write(place, head, older)
    return head


def _read_head(place: Path) -> _Head | None:
    """None where there is none, or one that is cut short or damaged."""
    try:
        with place.open("rb") as file:
            data = file.read(_HEAD_BYTES)
    except OSError:
        return None
    head = data[_CHECKED_MAGIC_BYTES:]
    if not data.startswith(_MAGIC + blake3(head).digest()) or len(head) != _HEAD.size:
        return None
    signature, digest, records, files, size = _HEAD.unpack(head)
    return _Head(signature, Digest(digest.hex()), files, size, records)


def _read_records(place: Path) -> dict[bytes, _Record]:
    """By path; empty where there are none, or damaged ones."""
    head = _read_head(place)
    if head is None:
        return {}
    try:
        data = place.read_bytes()[_HEAD_BYTES:]
    except OSError:
        return {}
    if blake3(data).digest() != head.records:
        return {}
    return {record.entry.path: record for record in _unpack(data)}


def _unpack(data: bytes) -> Iterator[_Record]:
    position = 0
    while position < len(data):
        length, status, kind, digest, size = _RECORD.unpack_from(data, position)
        start = position + _RECORD.size
        position = start + length
        path = data[start:position]
        yield _Record(status, Entry(path, kind.decode(), digest.hex(), size))


def _write(place: Path, head: _Head, records: list[_Record]) -> None:
    """Replace what is remembered, in one step. A cache that can't be written is none."""
    data = b"".join(
        _RECORD.pack(len(path), status, kind.encode(), bytes.fromhex(digest), size) + path
        for status, (path, kind, digest, size) in records
    )
    packed = _HEAD.pack(
        head.signature,
        bytes.fromhex(head.digest.hex),
        blake3(data).digest(),
        head.files,
        head.size,
    )
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Not synced: after a crash the digests in it show whether all of it is there.
            temporary.write_bytes(_MAGIC + blake3(packed).digest() + packed + data)
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
