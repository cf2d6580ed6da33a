"""Rows and columns of a parquet file, from its footer.

The footer is a `FileMetaData` in Thrift's compact protocol:
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, Any

_MAGIC = b"PAR1"
_LONGEST_FOOTER = 64 << 20
_DEEPEST = 16
_LARGEST = 63
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
_SCHEMA, _ROWS = 2, 3  # fields of FileMetaData
_NAME, _CHILDREN = 4, 5  # fields of SchemaElement


def parquet_shape(stream: IO[bytes]) -> tuple[int, tuple[str, ...]]:
    """Raises ValueError, IndexError or KeyError for what is no parquet file."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(size - 8, 0))
    length, magic = int.from_bytes(stream.read(4), "little"), stream.read(4)
    if magic != _MAGIC or length > min(size - 12, _LONGEST_FOOTER):
        raise ValueError("not a parquet file")
    stream.seek(size - 8 - length)
    found = {}
    for field, value in _Compact(stream.read(length)).struct(0):
        found[field] = value
        if field == _ROWS:  # the row groups after it can be large
            break
    return found[_ROWS], tuple(_column_names(found[_SCHEMA]))


def _column_names(schema: list[dict[int, Any]]) -> Iterator[str]:
    """The children of the root; the schema lists each element before those below it."""
    inside = 0
    for element in schema[1:]:
        if not inside:
            yield element[_NAME].decode()
        inside += element.get(_CHILDREN, 0) - (inside > 0)


class _Compact:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self, depth: int) -> Iterator[tuple[int, Any]]:
        field = 0
        while header := self._byte():
            field = field + (header >> 4) if header >> 4 else self._integer()
            yield field, self._value(header & 15, depth)

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in _INTEGERS:
            return self._integer()
        if kind in (_BYTE, _DOUBLE, _BINARY):
            return self._bytes({_BYTE: 1, _DOUBLE: 8}.get(kind) or self._unsigned())
        if kind in (_LIST, _SET):
            header = self._byte()
            count = header >> 4 if header >> 4 < 15 else self._unsigned()
            if count > len(self._data):
                raise ValueError("a list longer than the footer")
            return [self._value(header & 15, depth + 1) for _ in range(count)]
        if kind == _STRUCT:
            return dict(self.struct(depth + 1))
        raise ValueError("a kind of value that parquet does not use")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def _unsigned(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > _LARGEST:
                raise ValueError("a number too large")
        return value | byte << shift

    def _integer(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)
