"""What stands in `model.lock`, checked value by value, with errors that name line and key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from modelbuild.errors import InvalidInputError
from modelbuild.spec.digest import Digest
from modelbuild.spec.recipe import Level, ParamValue
from modelbuild.spec.toml_text import line_of, toml_key, toml_value

T = TypeVar("T")
CONFLICT_MARKERS = (b"<<<<<<<", b"|||||||", b"=======", b">>>>>>>")
"""In the order in which they come: ours, the common ancestor, theirs, the end."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UPSTREAM = re.compile(r"([^ :]+:[^ :]+) (b3:[0-9a-f]{12})")
_TOML_POSITION = re.compile(r" \(at line (\d+), column \d+\)$")


class LockText:
    """The bytes of a lock, and where in them something is wrong."""

    def __init__(self, data: bytes, path: str) -> None:
        self.path = path
        self._data = data
        self._hint = f"Restore {path} as it was last committed, then run: modelbuild lock"

    def parse(self, part: str | None = None) -> dict[str, Any]:
        """The content of the whole, or of a part of it that is TOML by itself."""
        try:
            return tomllib.loads(self.checked() if part is None else part)
        except tomllib.TOMLDecodeError as error:
            if part is not None:
                return self.parse()  # fails too, and knows the line
            raise self._not_toml(str(error)) from None

    def checked(self) -> str:
        """The text, which has no conflict markers."""
        self._check_conflicts()
        try:
            return self._data.decode()
        except UnicodeDecodeError as error:
            line = self._data.count(b"\n", 0, error.start) + 1
            raise InvalidInputError(
                f"{self.path}:{line}: not UTF-8",
                facts=[("found", f"byte 0x{self._data[error.start]:02x}")],
                hint=self._hint,
            ) from None

    def error(
        self, key: Sequence[str], problem: str, facts: Sequence[tuple[str, str]] = ()
    ) -> InvalidInputError:
        place = [self.where(key), ".".join(map(toml_key, key))]
        summary = ": ".join([*filter(None, place), problem])
        return InvalidInputError(summary, facts=facts, hint=self._hint)

    def where(self, key: Sequence[str]) -> str:
        line = line_of(self.checked(), key)
        return f"{self.path}:{line}" if line else self.path

    def _check_conflicts(self) -> None:
        if not any(marker in self._data for marker in CONFLICT_MARKERS):
            return
        for number, line in enumerate(self._data.split(b"\n"), start=1):
            if line.startswith(CONFLICT_MARKERS):
                raise InvalidInputError(
                    f"{self.path}:{number}: a merge conflict is not resolved",
                    facts=[("found", line.decode(errors="backslashreplace").rstrip())],
                    hint="Run: modelbuild lock",
                )

    def _not_toml(self, message: str) -> InvalidInputError:
        position = _TOML_POSITION.search(message)
        where = f"{self.path}:{position[1]}" if position else self.path
        return InvalidInputError(
            f"{where}: not TOML",
            facts=[("found", _TOML_POSITION.sub("", message))],
            hint=self._hint,
        )


class Table:
    """One table of the lock: `take` what must be there, `finish` refuses the rest."""

    def __init__(self, content: dict[str, Any], key: tuple[str, ...], text: LockText) -> None:
        self.content = content
        self._key = key
        self._text = text
        self._taken: set[str] = set()

    def take(self, name: str, check: Callable[[object], T]) -> T:
        value = self.maybe(name, check)
        if value is None:
            raise self.error(None, f"'{name}' is missing")
        return value

    def maybe(self, name: str, check: Callable[[object], T]) -> T | None:
        self._taken.add(name)
        if name not in self.content:
            return None
        value = self.content[name]
        try:
            return check(value)
        except ValueError as wanted:
            raise self._wrong(name, str(wanted), value) from None

    def tables(
        self, name: str, check_name: Callable[[object], str] = str
    ) -> Iterator[tuple[str, Table]]:
        """The tables below `name`, none where it is absent."""
        for key, value in self._below(name):
            if not isinstance(value, dict):
                raise self._wrong(name, "a table", value, key)
            try:
                check_name(key)
            except ValueError as wanted:
                raise self._wrong(name, str(wanted), key, key) from None
            yield key, Table(value, (*self._key, name, key), self._text)

    def every(self) -> Iterator[tuple[str, Table]]:
        """All entries of this table, each of them a table."""
        for key, value in self.content.items():
            self._taken.add(key)
            if not isinstance(value, dict):
                raise self._wrong(key, "a table", value)
            yield key, Table(value, (*self._key, key), self._text)

    def entries(self, name: str, check: Callable[[object], T]) -> Iterator[tuple[str, T]]:
        """The values below `name`, none where it is absent."""
        for key, value in self._below(name):
            try:
                yield key, check(value)
            except ValueError as wanted:
                raise self._wrong(name, str(wanted), value, key) from None

    def finish(self) -> None:
        for name in self.content:
            if name not in self._taken:
                raise self.error(name, "unknown key")

    def error(
        self, name: str | None, problem: str, facts: Sequence[tuple[str, str]] = ()
    ) -> InvalidInputError:
        key = self._key if name is None else (*self._key, name)
        return self._text.error(key, problem, facts)

    def where(self, name: str) -> str:
        return self._text.where((*self._key, name))

    def _below(self, name: str) -> Iterator[tuple[str, object]]:
        self._taken.add(name)
        if name not in self.content:
            return iter(())
        value = self.content[name]
        if not isinstance(value, dict):
            raise self._wrong(name, "a table", value)
        # The writer leaves empty tables out: a header without entries lost them in a merge.
        if not value:
            raise self.error(name, "a table without entries")
        return iter(value.items())

    def _wrong(self, name: str, wanted: str, found: object, *more: str) -> InvalidInputError:
        key = (*self._key, name, *more)
        return self._text.error(
            key, "not what belongs here", [("wanted", wanted), ("found", _shown(found))]
        )


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    try:
        text = toml_value(value)  # type: ignore[arg-type]  # dates raise TypeError
    except TypeError:
        text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a string")
    return value


def integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("an integer")
    return value


def count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("an integer, not below 0")
    return value


def number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("a number")
    return value


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def string_or_integer(value: object) -> str | int:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError("a string or an integer")
    return value


def digest(value: object) -> Digest:
    try:
        return Digest.parse(string(value))
    except ValueError:
        raise ValueError("b3: and 64 hexadecimal digits") from None


def sha256(value: object) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError("64 hexadecimal digits")
    return value


def relative_path(value: object) -> str:
    """A path that can't lead out of the folder it is relative to."""
    wanted = "a path without .., relative, with / between its parts"
    if not isinstance(value, str) or not {"", ".", ".."}.isdisjoint(value.split("/")):
        raise ValueError(wanted)
    return value


def file_name(value: object) -> str:
    if not isinstance(value, str) or value in ("", ".", "..") or "/" in value:
        raise ValueError("the name of a file, without folders")
    return value


def level(value: object) -> str:
    known = [each.value for each in Level]
    if value not in known:
        raise ValueError(f"one of {', '.join(known)}")
    return str(value)


def numbers(value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("a list of numbers")
    return tuple(number(each) for each in value)


def tf32(value: object) -> str:
    if value is not False:
        raise ValueError("false: the script's choice, which is the default, is not written")
    return "false"


def upstream(value: object) -> tuple[str, str]:
    """A stage and the beginning of its derivation's digest."""
    match = _UPSTREAM.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("RECIPE:STAGE, a space, b3: and 12 hexadecimal digits")
    return match[1], match[2]


def strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("an array of strings")
    return tuple(value)


def sorted_strings(value: object) -> tuple[str, ...]:
    items = strings(value)
    if list(items) != sorted(set(items)):
        raise ValueError("an array of strings, sorted, none twice")
    return items


def digests(value: object) -> tuple[Digest, ...]:
    if not isinstance(value, list):
        raise ValueError("an array of digests")
    return tuple(map(digest, value))


def param(value: object) -> ParamValue:
    if isinstance(value, list):
        return tuple(map(param, value))
    if not isinstance(value, str | int | float):
        raise ValueError("a string, a number, true, false, or an array of these")
    return value
