"""What is not the same before and after, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Change(Generic[T]):
    """Something of that name, before and after; None where it is not there."""

    name: str
    old: T | None
    new: T | None


def changes(old: Mapping[str, T], new: Mapping[str, T]) -> tuple[Change[T], ...]:
    """What is not the same on both sides, by name. Equal numbers of two types are a change."""
    return tuple(
        Change(name=name, old=old.get(name), new=new.get(name))
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name) or type(old.get(name)) is not type(new.get(name))
    )
