"""The `[params]` of a recipe."""

from __future__ import annotations

import re
from math import isfinite

from modelbuild.spec.recipe import ParamValue
from modelbuild.spec.recipe_fields import Table, describe

_NAME = re.compile(r"[A-Za-z0-9_-]+")


def read_params(table: Table) -> dict[str, ParamValue]:
    """Nested tables are flattened to dotted names."""
    found: dict[str, ParamValue] = {}
    _flatten(table, "", found)
    return found


def _flatten(table: Table, prefix: str, found: dict[str, ParamValue]) -> None:
    for key, value in table.values.items():
        if not _NAME.fullmatch(key):
            table.fail(
                key,
                "a parameter has a name that can't be used",
                wanted="letters, digits, '_' and '-'",
                found=describe(key),
            )
        if isinstance(value, dict):
            _flatten(table.table(key), f"{prefix}{key}.", found)
        else:
            found[prefix + key] = read_param(table, key, value)


def read_param(table: Table, key: str, value: object) -> ParamValue:
    """A parameter's value: what JSON can hold, without tables and null."""
    if isinstance(value, list):
        return tuple(read_param(table, key, item) for item in value)
    if isinstance(value, str):
        table.check_text(key, value)
        return value
    if not isinstance(value, bool | int | float):
        quoted = None if isinstance(value, dict) else f'Quote it: {key} = "{value}"'
        table.wrong_type(key, "strings, numbers, booleans and lists of these", value, quoted)
    if (isinstance(value, float) and not isfinite(value)) or abs(value) >= 2**63:
        table.fail(
            key,
            f"{table.named(key)} is out of range",
            wanted="a finite number, or an integer of 64 bits",
            found=describe(value),
        )
    return value
