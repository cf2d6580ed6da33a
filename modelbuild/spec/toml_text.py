"""TOML as text: write values in one canonical way, and find the line of a key again."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from modelbuild.spec.canonical import Json

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# Control characters, and those that a reviewer does not see or that reorder the text around
# them. A fixed list: `str.isprintable` changes with the version of Python.
_ESCAPED = re.compile(
    '["\\\\\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]'
)
_SHORT_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
}


def toml_string(text: str) -> str:
    """A basic string on one line."""
    return f'"{_ESCAPED.sub(_escape, text)}"'


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    return _SHORT_ESCAPES.get(character) or f"\\u{ord(character):04X}"


def toml_key(text: str) -> str:
    return text if _BARE_KEY.fullmatch(text) else toml_string(text)


def toml_value(value: Json) -> str:
    """A value on one line: arrays and tables are inline."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return toml_string(value)
    if isinstance(value, Mapping):
        entries = ", ".join(f"{toml_key(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {entries} }}" if entries else "{}"
    if isinstance(value, Sequence):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    raise TypeError(f"TOML has no form for {value!r}")


def toml_table(path: Iterable[str], entries: Mapping[str, Json]) -> list[str]:
    """A blank line, a header, and one line an entry; nothing for an empty table.

    Entries that are None are left out. A list is written one item a line, so that two branches
    which add to it merge; any other sequence stays on the entry's line.
    """
    present = {key: value for key, value in entries.items() if value is not None}
    if not present:
        return []
    lines = ["", f"[{'.'.join(map(toml_key, path))}]"]
    for key, value in present.items():
        if isinstance(value, list) and value:
            lines += [f"{toml_key(key)} = [", *(f"  {toml_value(item)}," for item in value), "]"]
        else:
            lines.append(f"{toml_key(key)} = {toml_value(value)}")
    return lines


def line_of(text: str, key: Sequence[str]) -> int | None:
    """The line, from 1, of the longest part of `key` that has one.

    Knows headers and entries that stand on a line of their own, and the first line of an array.
    """
    best: tuple[int, int] | None = None
    table: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        path = _path_of(line)
        if path is None:
            continue
        if line.startswith("["):
            table = path
        else:
            path = table + path
        depth = len(path)
        if path == list(islice(key, depth)) and (best is None or depth > best[0]):
            best = (depth, number)
    return best and best[1]


def _path_of(line: str) -> list[str] | None:
    """The keys that a line spells, outermost first: `[a.b]` gives a, b; `c = 1` gives c."""
    if line.endswith("["):
        line += "]"
    try:
        found: object = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return None
    if not line.startswith("["):
        return list(found)[:1] if isinstance(found, dict) and found else None
    path = []
    while isinstance(found, dict) and found:
        (name,) = found
        path.append(name)
        found = found[name]
    return path
