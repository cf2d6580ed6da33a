"""Rows and columns of tables, for reviewers: csv, tsv, jsonl, npy, npz, parquet.

Read as a stream, in constant memory. What can't be read has no shape; it is data all the same.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import IO, TypeAlias, cast

Shape: TypeAlias = "tuple[int, tuple[str, ...]]"
"""Rows, without the header, and the names of the columns, none where they have no names."""

_CHUNK = 1 << 20
_LONGEST_LINE = 16 << 20
_MOST_NAMES = 200


def table_shape(path: Path) -> Shape | None:
    """Rows and column names by the file's suffix; None for what is no table, or malformed.

    A csv file whose first row is all numbers has no header: only their number is given. Of
    more than 200 columns the last name says how many more there are.
    """
    name = path.name.lower()
    packed = name.endswith(".gz")
    reader = _READERS.get(os.path.splitext(name.removesuffix(".gz"))[1])
    if reader is None:
        return None
    try:
        with closing(_open(path, packed)) as stream:
            shape = reader(stream)
    except Exception:  # malformed in whatever way: the shape is a courtesy
        return None
    return shape and (shape[0], _bounded(shape[1]))


def _open(path: Path, packed: bool) -> IO[bytes]:
    if not packed:
        return path.open("rb")
    import gzip

    return cast("IO[bytes]", io.BufferedReader(gzip.open(path), _CHUNK))


def _bounded(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) <= _MOST_NAMES:
        return names
    return (*names[: _MOST_NAMES - 1], f"and {len(names) - _MOST_NAMES + 1} more")


def _comma_separated(stream: IO[bytes]) -> Shape | None:
    start = _first_line(stream)
    delimiter = next((sign for sign in ",;\t|" if sign in start), ",")
    return _separated(start, stream, delimiter)


def _tab_separated(stream: IO[bytes]) -> Shape | None:
    return _separated(_first_line(stream), stream, "\t")


def _first_line(stream: IO[bytes]) -> str:
    return next(_lines(stream), b"").decode("utf-8-sig")


def _separated(start: str, stream: IO[bytes], delimiter: str) -> Shape | None:
    import csv

    text = chain([start], (line.decode() for line in _lines(stream)))
    first = next(filter(None, csv.reader(text, delimiter=delimiter)), None)
    if first is None or "\0" in start:
        return None
    rows = 0
    for chunk in _chunks(stream):
        rows += _quoted_rows(chunk, stream, delimiter) if b'"' in chunk else _plain_rows(chunk)
    if all(map(_is_number, first)):
        return rows + 1, (f"{len(first)} without names",)
    return rows, tuple(first)


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    while line := stream.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise ValueError("a line too long for a table")
        yield line


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """Pieces that end where a line does."""
    while chunk := stream.read(_CHUNK):
        yield chunk if chunk.endswith(b"\n") else chunk + next(_lines(stream), b"")


def _plain_rows(chunk: bytes) -> int:
    """Lines that are not empty. Counting ends of lines is ten times quicker than splitting."""
    if chunk.startswith((b"\n", b"\r\n")) or b"\n\n" in chunk or b"\n\r\n" in chunk:
        return sum(1 for line in chunk.split(b"\n") if line.rstrip(b"\r"))
    return chunk.count(b"\n") + (not chunk.endswith(b"\n"))


def _quoted_rows(chunk: bytes, stream: IO[bytes], delimiter: str) -> int:
    """Records that begin in the chunk; the last one may go on in the stream."""
    import csv

    buffer = io.BytesIO(chunk)
    # Any encoding that keeps ASCII does: only delimiters, quotes and ends of lines count.
    text = (line.decode("latin-1") for line in chain(buffer, _lines(stream)))
    reader = csv.reader(text, delimiter=delimiter)
    rows = 0
    while buffer.tell() < len(chunk):
        rows += bool(next(reader, None))
    return rows


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _json_lines(stream: IO[bytes]) -> Shape | None:
    import json

    line = next((line for line in _lines(stream) if line.strip()), None)
    if line is None:
        return None
    first: object = json.loads(line)
    rows = 1 + sum(map(_plain_rows, _chunks(stream)))
    return rows, tuple(map(str, first)) if isinstance(first, dict) else ()


def _numpy_array(stream: IO[bytes]) -> Shape | None:
    from modelbuild.store.tensor_files import numpy_files

    text, _ = numpy_files.split_header(stream.read(numpy_files.LONGEST_START))
    shape = numpy_files.header_shape(text)
    return (shape[0], numpy_files.header_fields(text)) if shape else None


def _numpy_archive(stream: IO[bytes]) -> Shape | None:
    """Rows where all arrays have as many; the arrays' names are the columns."""
    import zipfile

    rows: set[int] = set()
    names = []
    with zipfile.ZipFile(stream) as archive:
        for name in archive.namelist():
            with archive.open(name) as array:
                shape = _numpy_array(array)
            if shape is None:
                return None
            rows.add(shape[0])
            names.append(name.removesuffix(".npy"))
    return (rows.pop(), tuple(names)) if len(rows) == 1 else None


def _parquet(stream: IO[bytes]) -> Shape | None:
    from modelbuild.sources.parquet_footer import parquet_shape

    return parquet_shape(stream)


_READERS: dict[str, Callable[[IO[bytes]], Shape | None]] = {
    ".csv": _comma_separated,
    ".tsv": _tab_separated,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".npy": _numpy_array,
    ".npz": _numpy_archive,
    ".parquet": _parquet,
}
