"""A command as it was typed, taken apart: the program, and its arguments with their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelbuild.draft.script import Option

_ASSIGNED = re.compile(r"(-{0,2}[A-Za-z_][\w.-]*)=(.*)", re.DOTALL)
_NEGATIVE = re.compile(r"-\d*\.?\d+(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Argument:
    """`--lr 0.1`, `--lr=0.1`, `lr=0.1`, a word alone, or an option that was not given."""

    flag: str | None
    """As it was typed; None for a word alone."""
    name: str
    """`learning-rate`, also where `-l` was typed; empty for a word alone."""
    value: str | None
    """None for an option without a value."""
    joined: bool = False
    """Whether `=` stands between."""
    given: bool = True

    def words(self, value: str) -> tuple[str, ...]:
        """The words of the command with another value."""
        if self.flag is None:
            return (value,)
        return (f"{self.flag}={value}",) if self.joined else (self.flag, value)

    @property
    def all_words(self) -> tuple[str, ...]:
        return (self.flag or "",) if self.value is None else self.words(self.value)


def arguments(words: Sequence[str], options: Sequence[Option]) -> list[Argument]:
    """All that was given; then the script's other options, with their defaults."""
    given = list(_given(words, {flag: each for each in options for flag in each.flags}))
    names = {argument.name for argument in given}
    others = (each for each in options if each.flag and each.name not in names and each.takes_one)
    defaults = (
        Argument(flag=each.flag, name=each.name, value=str(each.default), given=False)
        for each in others
        if isinstance(each.default, str | int) and each.default != ""
    )
    return [*given, *defaults]


def _given(words: Sequence[str], known: dict[str, Option]) -> Iterator[Argument]:
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        assigned = _ASSIGNED.fullmatch(word)
        if assigned:
            yield Argument(
                flag=assigned[1], name=_name(assigned[1], known), value=assigned[2], joined=True
            )
        elif not word.startswith("-") or _NEGATIVE.fullmatch(word):
            yield Argument(flag=None, name="", value=word)
        else:
            value = waiting.pop(0) if _takes_value(word, waiting, known) else None
            yield Argument(flag=word, name=_name(word, known), value=value)


def _takes_value(flag: str, rest: Sequence[str], known: dict[str, Option]) -> bool:
    if not rest or (flag in known and not known[flag].takes_one):
        return False
    return not rest[0].startswith("-") or _NEGATIVE.fullmatch(rest[0]) is not None


def _name(flag: str, known: dict[str, Option]) -> str:
    return known[flag].name if flag in known else flag.lstrip("-")
