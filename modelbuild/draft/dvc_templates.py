"""The stages of a dvc.yaml one by one: `foreach` and `matrix` written out, as DVC does.

Names and values follow DVC: a list of plain values gives `train@0.1`, a list of tables `train@0`, a
table `train@us`, a matrix `train@cnn-0.1`, in which lists and tables are called by their place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NoReturn

from modelbuild.spec.canonical import Json

REFERENCE = re.compile(r"\$\{\s*([^}]*?)\s*\}")
_PARAM = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*")
"""What can be the name of a parameter in a recipe."""
_WORD = re.compile(r"[\w./:@%+,-]+")
Refuse = Callable[[str, str], NoReturn]


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """One stage, before its `${}` are filled in."""

    name: str
    """As DVC calls it."""
    table: Any
    own: Mapping[str, Json] = field(default_factory=dict)
    """What `${item.a}` and `${key}` stand for in it."""
    known_as: Mapping[str, str] = field(default_factory=dict)
    """Those of them that have a name outside of it too: `item.lr`, which is `models.us.lr`."""


def written_out(
    name: str, table: object, values: Mapping[str, Json], refuse: Refuse
) -> Iterator[Template]:
    """The stages for which an entry of `stages` stands."""
    if not isinstance(table, dict) or not table.keys() & {"foreach", "matrix"}:
        yield Template(name=name, table=table)
        return
    if "matrix" in table:
        yield from _matrix(name, table, values, refuse)
        return
    if set(table) != {"foreach", "do"}:
        refuse("'foreach' goes with 'do' and nothing else", "move the rest into 'do'")
    items = _resolved(table["foreach"], values, refuse)
    if not isinstance(items, list | dict):
        refuse("'foreach' is no list and no table", "name a list or a table")
    reference = REFERENCE.fullmatch(table["foreach"]) if isinstance(table["foreach"], str) else None
    for key, item in _by_key(items).items():
        own = {"item": item, "key": key} if isinstance(items, dict) else {"item": item}
        known = f"{normalised(reference[1])}.{key}" if reference else ""
        yield Template(
            name=f"{name}@{key}",
            table=table["do"],
            own=dict(flat(own, "")),
            known_as=_known_as(item, known, values) if isinstance(items, dict) else {},
        )


def _by_key(items: list[Any] | dict[Any, Any]) -> dict[str, Any]:
    if isinstance(items, dict):
        return {as_text(key): item for key, item in items.items()}
    if any(isinstance(item, list | dict) for item in items):
        return {str(place): item for place, item in enumerate(items)}
    return {as_text(item): item for item in items}


def _known_as(item: object, known: str, values: Mapping[str, Json]) -> dict[str, str]:
    found = {}
    for name, value in flat({"item": item}, ""):
        other = known + name.removeprefix("item")
        # A shell splits other texts into words, which a parameter is not.
        if other in values and _PARAM.fullmatch(other) and _WORD.fullmatch(as_text(value)):
            found[name] = other
    return found


def _matrix(
    name: str, table: Mapping[str, Any], values: Mapping[str, Json], refuse: Refuse
) -> Iterator[Template]:
    if "do" in table:
        refuse("'matrix' goes without 'do'", "write its contents beside 'matrix'")
    axes = _resolved(table["matrix"], values, refuse)
    if not isinstance(axes, dict) or not all(isinstance(v, list | dict) for v in axes.values()):
        refuse("'matrix' has something that is no list", "write a list for each name")
    rest = {key: value for key, value in table.items() if key != "matrix"}
    for combination in product(*(enumerate(axis) for axis in axes.values())):
        item, parts = {}, []
        for axis, (place, value) in zip(axes, combination, strict=True):
            item[axis] = value
            composite = isinstance(value, list | dict)
            parts.append(f"{axis}{place}" if composite else as_text(value))
        key = "-".join(parts)
        own = dict(flat({"item": item, "key": key}, ""))
        yield Template(name=f"{name}@{key}", table=rest, own=own)


def _resolved(content: object, values: Mapping[str, Json], refuse: Refuse) -> Any:
    """With its `${}` filled in; what is only a reference becomes what that stands for."""

    def value(match: re.Match[str]) -> Json:
        name = normalised(match[1])
        if name not in values:
            refuse(f"'{match[0]}' is not in params.yaml or vars", "write it out")
        return values[name]

    if isinstance(content, dict):
        return {key: _resolved(each, values, refuse) for key, each in content.items()}
    if isinstance(content, list):
        return [_resolved(each, values, refuse) for each in content]
    if not isinstance(content, str):
        return content
    whole = REFERENCE.fullmatch(content)
    return value(whole) if whole else REFERENCE.sub(lambda match: as_text(value(match)), content)


def flat(values: Mapping[Any, Any], before: str) -> Iterator[tuple[str, Json]]:
    """Everything in it by dotted name, tables and lists among them."""
    for name, value in values.items():
        yield f"{before}{name}", value
        if isinstance(value, dict):
            yield from flat(value, f"{before}{name}.")
        elif isinstance(value, list):
            yield from flat(dict(enumerate(value)), f"{before}{name}.")


def normalised(reference: str) -> str:
    """`models[0].lr` is `models.0.lr`."""
    return reference.replace("[", ".").replace("]", "")


def as_text(value: object) -> str:
    """As DVC writes a value into a command or a path."""
    return str(value).lower() if isinstance(value, bool) else str(value)
