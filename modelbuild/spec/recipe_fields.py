"""Reading the fields of one TOML table: every mistake has its place and its own message."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import PurePosixPath
from typing import NoReturn, TypeVar

from modelbuild.errors import InvalidInputError, ModelbuildError

T = TypeVar("T")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
"""A name becomes a folder, and part of a store path, which has at most 255 bytes."""
_INTEGERS = range(-(2**63), 2**63)
"""Those that TOML promises."""
_SHOWN = 200
_LISTED = 30


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word that was probably meant."""
    from difflib import get_close_matches

    by_folded = {known.casefold(): known for known in words}
    folded = word.casefold()
    longer = (known for known in by_folded if folded and known.startswith(folded))
    found = get_close_matches(folded, by_folded, n=1) or list(longer)
    return by_folded[found[0]] if found else None


def did_you_mean(word: str, words: Iterable[str]) -> str | None:
    found = nearest(word, words)
    return f"Did you mean {found!r}?" if found else None


def describe(value: object) -> str:
    """A TOML value for people, its type first."""
    kind = type_name(value)
    if isinstance(value, dict):
        return f"{kind} with {listing(value)}" if value else "an empty table"
    if isinstance(value, bool):
        return f"{kind}: {str(value).lower()}"
    if isinstance(value, int) and value not in _INTEGERS:
        return f"{kind} of more than 64 bits"
    if isinstance(value, list):
        return f"{kind} of {len(value)}"
    return f"{kind}: {printable(repr(value) if isinstance(value, str) else str(value))}"


def type_name(value: object) -> str:
    names = {bool: "a boolean", int: "an integer", float: "a float", str: "a string"}
    names |= {list: "a list", dict: "a table"}
    return names.get(type(value), "a date or time")


def listing(words: Iterable[str]) -> str:
    """Words for people, with what a terminal can't show escaped."""
    shown = [printable(word) for word in words]
    if len(shown) > _LISTED:
        shown[_LISTED:] = [f"and {len(shown) - _LISTED} more"]
    return ", ".join(shown) or "nothing"


def printable(text: str) -> str:
    shown = text if text.isprintable() else repr(text)[1:-1]
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


class Source:
    """Where a recipe stands."""

    __slots__ = ("lines", "path")

    def __init__(self, path: PurePosixPath, lines: Mapping[str, int]) -> None:
        self.path = path
        self.lines = lines

    def line(self, key: str) -> int:
        """Of a dotted key, or of the nearest table around it."""
        while key:
            if key in self.lines:
                return self.lines[key]
            key = key.rpartition(".")[0]
        return 1

    def error(self, key: str, what: str, **facts: str | None) -> ModelbuildError:
        """`facts` by label; `hint` among them is what to do next."""
        hint = facts.pop("hint", None)
        return InvalidInputError(
            f"{self.path}:{self.line(key)}: {what}",
            facts=[(label, value) for label, value in facts.items() if value is not None],
            hint=hint,
        )


class Table:
    """One table. Readers return the default for an absent key and raise for a wrong value."""

    __slots__ = ("key", "source", "values")

    def __init__(self, source: Source, key: str, values: Mapping[str, object]) -> None:
        self.source = source
        self.key = key
        """In dotted form; empty for the whole document."""
        self.values = values

    def at(self, key: str) -> str:
        return f"{self.key}.{key}" if self.key else key

    def named(self, key: str) -> str:
        """`'python' in [environment]`."""
        within = f" in [{printable(self.key)}]" if self.key else ""
        return f"'{printable(key)}'{within}"

    def fail(self, key: str, what: str, **facts: str | None) -> NoReturn:
        raise self.source.error(self.at(key), what, **facts)

    def wrong_type(self, key: str, wanted: str, value: object, hint: str | None = None) -> NoReturn:
        self.fail(
            key,
            f"wrong type for {self.named(key)}",
            wanted=wanted,
            found=describe(value),
            hint=hint,
        )

    def only(self, known: Sequence[str]) -> None:
        """Refuse keys that are not known."""
        for key, value in self.values.items():
            if key in known:
                continue
            is_table = isinstance(value, dict)
            name = f"table [{printable(self.at(key))}]" if is_table else f"key {self.named(key)}"
            self.fail(
                key,
                f"unknown {name}",
                wanted=listing(known),
                found=printable(key),
                hint=did_you_mean(key, known),
            )

    def require(self, key: str, example: str) -> None:
        if key not in self.values:
            within = f"[{printable(self.key)}]" if self.key else "the recipe"
            self.fail(key, f"{within} has no '{key}'", wanted=example, found=listing(self.values))

    def text(self, key: str, default: T, wanted: str = "a string") -> str | T:
        """A string without NUL, which no argument and no file name can hold."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            quoted = f'Quote it: {key} = "{value}"' if _is_quotable(value) else None
            self.wrong_type(key, wanted, value, quoted)
        self.check_text(key, value)
        return value

    def texts(self, key: str, default: T, hint: str | None = None) -> tuple[str, ...] | T:
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, list):
            if hint is None and isinstance(value, str):
                hint = f'A list of one: {key} = ["{printable(value)}"]'
            self.wrong_type(key, "a list of strings", value, hint)
        for item in value:
            if not isinstance(item, str):
                quoted = f'Quote it: "{item}"' if _is_quotable(item) else None
                self.wrong_type(key, "a list of strings", item, quoted)
            self.check_text(key, item)
        return tuple(value)

    def check_text(self, key: str, value: str) -> None:
        if "\0" in value:
            self.fail(
                key,
                f"{self.named(key)} contains a NUL character",
                wanted="a string without it",
                found=describe(value),
            )

    def integer(self, key: str, default: T, within: range = _INTEGERS) -> int | T:
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            self.wrong_type(key, "an integer", value)
        if value not in within:
            self.fail(
                key,
                f"{self.named(key)} is out of range",
                wanted=f"an integer from {within[0]} to {within[-1]}",
                found=describe(value),
            )
        return value

    def boolean(self, key: str, default: T) -> bool | T:
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.wrong_type(key, "true or false", value)
        return value

    def tolerance(self, key: str) -> float:
        value = self.values.get(key, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.wrong_type(key, "a number", value)
        if value < 0 or value >= 2**63 or not isfinite(value):
            self.fail(
                key,
                f"{self.named(key)} is out of range",
                wanted="a finite number, 0 or more",
                found=describe(value),
            )
        return float(value)

    def choice(
        self, key: str, default: str, choices: Sequence[str], hint: str | None = None
    ) -> str:
        value = self.text(key, default, f"one of {listing(choices)}")
        if value not in choices:
            self.fail(
                key,
                f"unknown value of {self.named(key)}",
                wanted=listing(choices),
                found=printable(value),
                hint=hint or did_you_mean(value, choices),
            )
        return value

    def table(self, key: str, hint: str | None = None) -> Table:
        """Empty where it is absent."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            self.wrong_type(key, "a table", value, hint)
        return Table(self.source, self.at(key), value)

    def tables(self, hint: str | None = None) -> Iterable[tuple[str, Table]]:
        """The tables in this one by name. Every value must be a table."""
        return ((name, self.table(name, hint)) for name in self.values)

    def check_name(self, key: str, name: str, what: str) -> str:
        """The name, if it can be a folder's."""
        if not NAME.fullmatch(name):
            self.fail(
                key,
                f"{what} has a name that can't be used",
                wanted="letters, digits, '_', '.' and '-', the first a letter or digit, at most 80",
                found=describe(name),
            )
        return name


def _is_quotable(value: object) -> bool:
    """Whether a value was probably meant as a string. Not 3.1, which may have been 3.10."""
    return type(value) is int and value in _INTEGERS
