"""The `{...}` in a stage's arguments and environment variables."""

from __future__ import annotations

import re
from collections.abc import Mapping

from modelbuild.spec.recipe import ParamValue

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def references(argument: str) -> list[str]:
    """The names in `{...}`, in their order.

    `{{` and `}}` stand for the braces themselves. Raises ValueError for a brace that is neither
    part of a pair nor doubled.
    """
    names = []
    for match in _BRACES.finditer(argument):
        name = match.group(1)
        if name is not None:
            names.append(name)
        elif len(match.group()) == 1:
            raise ValueError(f"a single {match.group()} at character {match.start() + 1}")
    return names


def expand(argument: str, values: Mapping[str, str]) -> str:
    """The argument with every `{name}` replaced. `values` has all of `references(argument)`."""

    def replacement(match: re.Match[str]) -> str:
        name = match.group(1)
        return match.group()[0] if name is None else values[name]

    return _BRACES.sub(replacement, argument)


def render_param(value: ParamValue) -> str:
    """A parameter as an argument: a string as it is, all else as JSON with the shortest floats."""
    if isinstance(value, str):
        return value
    import json

    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def variable_suffix(name: str) -> str:
    """A name as part of an environment variable's: `train-set` is `TRAIN_SET`."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())
