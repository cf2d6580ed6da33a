"""The line of every key in a TOML text, for messages: `tomllib` does not tell.

A scanner and not a parser: what it does not understand it skips, so it never raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_PIECE = r'''"""(?:[^\\]|\\.)*?"{3,5}(?!")  # strings over several lines: up to two quotes
    |   \'\'\'.*?\'{3,5}(?!\')         # may stand before the closing three
    |   "(?:[^"\\\n]|\\.)*"
    |   '[^'\n]*'
    |   \#[^\n]*
    |   [\w-]+
    |   .'''
_DEEPEST = 32
"""Parts of a key that are recorded: a key of thousands must not take memory by its square."""
_Key = tuple[str, ...]


class KeyLines(Mapping[str, int]):
    """`key_lines` of a text, read when first asked: a valid recipe never needs them."""

    __slots__ = ("_lines", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines: dict[str, int] | None = None

    def _read(self) -> dict[str, int]:
        if self._lines is None:
            self._lines = key_lines(self._text)
        return self._lines

    def __getitem__(self, key: str) -> int:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


def key_lines(text: str) -> dict[str, int]:
    """The first line, from 1, of every dotted key and table, those in inline tables included."""
    scanner = _Scanner()
    for piece in re.finditer(_PIECE, text, re.DOTALL | re.VERBOSE):
        scanner.take(piece.group())
    return scanner.lines


class _Scanner:
    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self._line = 1
        self._table: _Key = ()
        """Of the last header."""
        self._open: list[_Key | None] = []
        """The inline tables around the next symbol by their keys, and None for every array."""
        self._key: _Key = ()
        self._place = "key"
        """What the next symbol is part of: a `key`, a `header` or a `value`."""

    def take(self, symbol: str) -> None:
        if symbol == "\n":
            self._end_of_line()
        elif self._place == "value":
            self._in_value(symbol)
        else:
            self._in_key(symbol)
        self._line += symbol.count("\n")

    def _end_of_line(self) -> None:
        if not self._open:
            self._key, self._place = (), "key"

    def _in_key(self, symbol: str) -> None:
        if symbol == "[" and not self._open and not self._key:
            self._place = "header"
        elif symbol == "]" and self._place == "header":
            self._table, self._place = self._key, "value"
            self._record(self._table)
        elif symbol == "=" and self._place == "key":
            self._place = "value"
            self._key = self._parent() + self._key
            self._record(self._key)
        elif symbol == "}" and self._open:
            self._close()
        elif symbol[0] in "\"'":
            self._key += (symbol[1:-1],)
        elif symbol[0].isalnum() or symbol[0] in "_-":
            self._key += (symbol,)

    def _in_value(self, symbol: str) -> None:
        if symbol == "[":
            self._open.append(None)
        elif symbol == "{":
            inside_array = None in self._open
            self._open.append(None if inside_array else self._key)
            if not inside_array:
                self._key, self._place = (), "key"
        elif symbol in ("]", "}"):
            self._close()
        elif symbol == "," and self._open and self._open[-1] is not None:
            self._key, self._place = (), "key"

    def _close(self) -> None:
        if self._open:
            self._open.pop()
        self._place = "value"

    def _parent(self) -> _Key:
        if self._open:
            return self._open[-1] or ()
        return self._table

    def _record(self, key: _Key) -> None:
        for end in range(1, min(len(key), _DEEPEST) + 1):
            self.lines.setdefault(".".join(key[:end]), self._line)
