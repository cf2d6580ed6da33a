"""Copies of trees on fresh inodes, and what makes a copy fit for the store."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from modelbuild.store.tree import (
    CHUNK,
    FILE,
    FOLDER,
    LINK,
    OPEN_TO_READ,
    changed_while_read,
    moved,
    read_link,
    special_file,
    system_errors,
    walk,
)

EPOCH = 315532800
"""1980-01-01: the time of every file that we copy, the oldest that a zip file can hold."""
_MANY = 1000
"""Files from which on one sync of the file system is quicker than one a file."""


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder onto fresh inodes, as the new folder `target`.

    Only names, contents, the executable bit and links are kept. Where the file system can,
    blocks are shared. Refuses what `scan_tree` refuses.
    """
    top, new_top = os.fsencode(source), os.fsencode(target)
    with system_errors(new_top, "write"):
        os.makedirs(new_top)
    made = {b""}
    for relative, kind in sorted((relative, kind) for relative, kind, _ in walk(top)):
        new = os.path.join(new_top, relative)
        parent = relative if kind == FOLDER else os.path.dirname(relative)
        if parent not in made:
            with system_errors(new, "write"):
                os.makedirs(os.path.join(new_top, parent), exist_ok=True)
            made.add(parent)
        if kind == FILE:
            copy_file(os.path.join(top, relative), new)
        elif kind == LINK:
            link = read_link(top, relative)
            with system_errors(new, "write"):
                os.symlink(link, new)


def copy_file(source: bytes, target: bytes) -> None:
    """Copy one file onto a fresh inode, content and executable bit."""
    with system_errors(source):
        origin = os.open(source, OPEN_TO_READ)
    try:
        before = os.fstat(origin)
        if not stat.S_ISREG(before.st_mode):
            raise special_file(source)
        mode = 0o777 if before.st_mode & stat.S_IXUSR else 0o666
        with system_errors(target, "write"):
            copy = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            try:
                copied = _copy_content(origin, copy)
            finally:
                os.close(copy)
        if copied != before.st_size or moved(before, os.fstat(origin)):
            raise changed_while_read(source)
    finally:
        os.close(origin)


def _copy_content(origin: int, copy: int) -> int:
    """Bytes copied. `copy_file_range` shares blocks or copies within the kernel."""
    copied = 0
    with contextlib.suppress(AttributeError, OSError):  # not on this system or file system
        while count := os.copy_file_range(origin, copy, 1 << 30):
            copied += count
    while block := os.read(origin, CHUNK):
        copied += len(block)
        while block:
            block = block[os.write(copy, block) :]
    return copied


def set_times(folder: Path) -> None:
    """Give everything in a folder, and the folder itself, the same modification time.

    A stage that packs its inputs into an archive would pack their times.
    """
    for path, _, names in os.walk(os.fsencode(folder), topdown=False):
        for name in (*names, b""):
            os.utime(os.path.join(path, name), (EPOCH, EPOCH), follow_symlinks=False)


def make_read_only(folder: Path, *, files: bool = True) -> None:
    """Take the write permission from everything in a folder, and from the folder itself.

    A folder without it can't be moved to another one, except by root. `files=False` leaves
    the files alone: those that are hard links belong to somebody else too.
    """
    with system_errors(os.fsencode(folder), "protect"):
        for path, _, names in os.walk(os.fsencode(folder), topdown=False, onerror=_raise):
            for name in names if files else ():
                file = os.path.join(path, name)
                mode = os.lstat(file).st_mode
                if not stat.S_ISLNK(mode):
                    os.chmod(file, 0o555 if mode & stat.S_IXUSR else 0o444)
            os.chmod(path, 0o555)  # noqa: S103 - other users may read a store


def _raise(error: OSError) -> None:
    raise error


def fsync_tree(folder: Path) -> None:
    """Have everything in a folder written to disk, names included."""
    top = os.fsencode(folder)
    with system_errors(top, "sync"):
        paths = [
            path
            for parent, _, files in os.walk(top, onerror=_raise)
            for path in (parent, *(os.path.join(parent, name) for name in files))
            if not os.path.islink(path)
        ]
    if len(paths) > _MANY and _sync_file_system(top):
        return
    for path in paths:
        _fsync(path)


def _fsync(path: bytes) -> None:
    with system_errors(path, "write"):
        descriptor = os.open(path, OPEN_TO_READ)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync_file_system(path: bytes) -> bool:
    """Sync all of a file system; False where this system has no call for it."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):
        return False
    with system_errors(path, "write"):
        descriptor = os.open(path, OPEN_TO_READ)
        try:
            if library.syncfs(descriptor) != 0:
                error = ctypes.get_errno()
                raise OSError(error, os.strerror(error))
        finally:
            os.close(descriptor)
    return True
