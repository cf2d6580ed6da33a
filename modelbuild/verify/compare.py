"""Compares two outputs, file by file, and files of tensors tensor by tensor."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from modelbuild.errors import ModelbuildError
from modelbuild.store.tensor_files import (
    Tensor,
    TensorFile,
    UnreadableTensorsError,
    read_tensors,
)
from modelbuild.verify.comparison import (
    FileComparison,
    LineComparison,
    Status,
    TensorComparison,
    TreeComparison,
    ValueComparison,
)
from modelbuild.verify.tensor_values import compare_values

__all__ = ["TreeComparison", "compare_trees"]

_CHUNK = 1 << 20
_LINE = 160
"""Characters of a line that are shown, at most."""


class _Entry(NamedTuple):
    kind: str
    """`file`, `executable file`, `link to ...`, `folder`, `special file`."""
    path: Path

    @property
    def is_file(self) -> bool:
        return self.kind in ("file", "executable file")


def compare_trees(first: Path, second: Path) -> TreeComparison:
    """Compare two folders bit by bit, and say in what the files differ.

    Memory is constant in the size of the files. Nothing is unpickled, nothing follows a link.
    Raises ModelbuildError where something can't be read.
    """
    try:
        entries_first, entries_second = _entries(first), _entries(second)
        paths = sorted(entries_first.keys() | entries_second.keys(), key=os.fsencode)
        files = [_compare(p, entries_first.get(p), entries_second.get(p)) for p in paths]
    except OSError as error:
        raise ModelbuildError(
            f"{first} and {second} can't be compared",
            facts=[("reason", f"{error.strerror}: {error.filename}")],
        ) from error
    return TreeComparison(files=tuple(files))


def _entries(root: Path) -> Mapping[str, _Entry]:
    """Everything below `root` by relative path; of folders those that are empty."""
    found: dict[str, _Entry] = {}
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as listing:
            entries = list(listing)
        if folder and not entries:
            found[folder] = _Entry("folder", root / folder)
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            else:
                found[path] = _Entry(_kind(entry), root / path)
    return found


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return f"link to {os.readlink(entry)}"
    if not entry.is_file(follow_symlinks=False):
        return "special file"
    executable = entry.stat(follow_symlinks=False).st_mode & stat.S_IXUSR
    return "executable file" if executable else "file"


def _compare(path: str, first: _Entry | None, second: _Entry | None) -> FileComparison:
    if first is None or second is None:
        status = Status.ONLY_SECOND if first is None else Status.ONLY_FIRST
        return FileComparison(path=path, status=status)
    if not (first.is_file and second.is_file):
        same = first.kind == second.kind != "special file"
        return FileComparison(
            path=path,
            status=Status.SAME if same else Status.OTHER_KIND,
            note=None if same else _kinds(first, second),
        )
    modes = None if first.kind == second.kind else _kinds(first, second)
    difference = _first_difference(first.path, second.path)
    if difference is None:
        return FileComparison(
            path=path, status=Status.OTHER_KIND if modes else Status.SAME, note=modes
        )
    return _explained(path, first.path, second.path, difference, modes)


def _kinds(first: _Entry, second: _Entry) -> str:
    return f"{first.kind} in first, {second.kind} in second"


def _explained(
    path: str, first: Path, second: Path, difference: _Place, modes: str | None
) -> FileComparison:
    """What is different in two files whose bytes are not the same."""
    notes = [modes] if modes else []
    try:
        contents = _both_tensors(first, second)
        if contents is not None:
            return _tensor_files(path, *contents, notes)
    except UnreadableTensorsError as error:
        notes.append(f"compared as bytes, because {error.summary}")
    return FileComparison(
        path=path,
        status=Status.DIFFERENT,
        note="; ".join(notes) or None,
        offset=difference.offset,
        line=_line(first, second, difference),
    )


def _both_tensors(first: Path, second: Path) -> tuple[TensorFile, TensorFile] | None:
    one, two = read_tensors(first), read_tensors(second)
    if one is None or two is None or one.kind != two.kind:
        return None
    return one, two


def _tensor_files(
    path: str, first: TensorFile, second: TensorFile, notes: list[str]
) -> FileComparison:
    names = [*first.tensors, *(name for name in second.tensors if name not in first.tensors)]
    compared = [
        _compare_tensors(name, first.tensors.get(name), second.tensors.get(name)) for name in names
    ]
    differing = tuple(tensor for tensor in compared if tensor.status is not Status.SAME)
    values = tuple(_differing_values(first.values, second.values))
    if not differing:
        notes = [*notes, "same tensors, other bytes"]
    return FileComparison(
        path=path,
        status=Status.DIFFERENT,
        note="; ".join(notes) or None,
        tensors=differing,
        same_tensors=len(compared) - len(differing),
        values=values,
    )


def _compare_tensors(name: str, first: Tensor | None, second: Tensor | None) -> TensorComparison:
    status, difference, note = Status.SAME, None, None
    if first is None or second is None:
        status = Status.ONLY_SECOND if first is None else Status.ONLY_FIRST
    elif (first.dtype, first.shape) != (second.dtype, second.shape):
        status = Status.OTHER_KIND
    else:
        try:
            difference = compare_values(first, second)
            status = Status.DIFFERENT if difference else Status.SAME
        except UnreadableTensorsError as error:
            status, note = Status.NOT_COMPARED, error.summary
    return TensorComparison(
        name=name,
        status=status,
        first=None if first is None else str(first),
        second=None if second is None else str(second),
        difference=difference,
        note=note,
    )


def _differing_values(
    first: Mapping[str, str], second: Mapping[str, str]
) -> Iterator[ValueComparison]:
    for name in [*first, *(name for name in second if name not in first)]:
        one, two = first.get(name), second.get(name)
        if one != two:
            yield ValueComparison(name=name, first=one, second=two)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where two files first differ."""

    offset: int
    newlines: int
    """Before it."""


def _first_difference(first: Path, second: Path) -> _Place | None:
    offset = newlines = 0
    with first.open("rb") as one, second.open("rb") as two:
        while True:
            chunk_one, chunk_two = one.read(_CHUNK), two.read(_CHUNK)
            if chunk_one != chunk_two:
                same = _common(chunk_one, chunk_two)
                return _Place(offset + same, newlines + chunk_one.count(b"\n", 0, same))
            if not chunk_one:
                return None
            offset += len(chunk_one)
            newlines += chunk_one.count(b"\n")


def _common(first: bytes, second: bytes) -> int:
    """How many bytes at the start are the same, by halving."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _line(first: Path, second: Path, place: _Place) -> LineComparison | None:
    """The first line that differs; None where that shows nothing: no text, or just its end."""
    start = max(0, place.offset - _LINE // 2)
    with first.open("rb") as file:
        file.seek(start)
        before = file.read(place.offset - start)
    start += before.rfind(b"\n") + 1
    lines = [_text_from(path, start) for path in (first, second)]
    if lines[0] == lines[1]:
        return None
    if any("\0" in line or "\ufffd" in line for line in lines if line):
        return None
    return LineComparison(number=place.newlines + 1, first=lines[0], second=lines[1])


def _text_from(path: Path, start: int) -> str | None:
    """The rest of the line, cut to what is shown; None at the end of the file."""
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(_LINE)
    if not data:
        return None
    line = data.split(b"\n")[0]
    # A cut may fall into a character, in front and behind.
    while line and line[0] & 0xC0 == 0x80:
        line = line[1:]
    text = line.decode("utf-8", "replace")
    return text.rstrip("\ufffd") if len(data) == _LINE else text
