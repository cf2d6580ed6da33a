"""A cheap check that an object is as it was made: names, sizes and times of its files.

The change time is left out: other hard links to a file change it.
"""

from __future__ import annotations

import os
from pathlib import Path

from modelbuild.errors import DigestMismatchError
from modelbuild.store.store import write_atomically


def write_fingerprint(folder: Path, path: Path) -> None:
    """Keep the fingerprint of `folder`, which is about to become the object `path`."""
    target = _fingerprint_of(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, b"\0".join(_lines(folder)))


def check_fingerprint(path: Path) -> None:
    """Check the object of an environment, an interpreter or a wheel.

    Raises DigestMismatchError.
    """
    try:
        wanted = _fingerprint_of(path).read_bytes()
    except FileNotFoundError:
        wanted = b""
    found = _lines(path)
    if b"\0".join(found) != wanted:
        raise _changed(path, set(wanted.split(b"\0")), set(found))


def _fingerprint_of(path: Path) -> Path:
    return path.parent.parent / "fingerprints" / path.name


def _lines(folder: Path) -> list[bytes]:
    top = os.fsencode(folder)
    lines = []
    pending = [b""]
    while pending:
        parent = pending.pop()
        with os.scandir(os.path.join(top, parent)) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(parent + entry.name + b"/")
                else:
                    status = entry.stat(follow_symlinks=False)
                    lines.append(
                        b"%b%b %d %d" % (parent, entry.name, status.st_size, status.st_mtime_ns)
                    )
    lines.sort()
    return lines


def _changed(path: Path, wanted: set[bytes], found: set[bytes]) -> DigestMismatchError:
    import shlex

    names = {line.rsplit(b" ", 2)[0]: line in wanted for line in wanted ^ found if line}
    first = min(names, default=b"")
    count = "1 file" if len(names) == 1 else f"{len(names)} files"
    place = shlex.quote(str(path))
    return DigestMismatchError(
        f"changed since it was made: {path}",
        facts=[("first", os.fsdecode(first)), ("changed", count)],
        hint=f"To have it made again: chmod -R u+w {place} && rm -r {place}",
    )
