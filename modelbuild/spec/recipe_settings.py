"""`--set NAME=VALUE`: a recipe with some of its values replaced, for an experiment."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from modelbuild.errors import UsageError
from modelbuild.spec.recipe import ParamValue, Recipe
from modelbuild.spec.recipe_fields import Source, Table, describe, listing, nearest, printable
from modelbuild.spec.recipe_hardware import COUNTS, SEEDS
from modelbuild.spec.recipe_params import read_param

SEED_NAMES = ("seed", "determinism.seed")
_THREADS = "hardware.threads"


class _Setting(Source):
    """A setting as the place of a mistake."""

    def __init__(self, text: str) -> None:
        super().__init__(PurePosixPath(), {})
        self.text = text

    def error(self, key: str, what: str, **facts: str | None) -> UsageError:
        hint = facts.pop("hint", None)
        return UsageError(
            f"--set {printable(self.text)}: {what}",
            facts=[(label, value) for label, value in facts.items() if value is not None],
            hint=hint,
        )


def override(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with `NAME=VALUE` settings applied in their order.

    NAME is `params.` and a parameter, `seed` or `hardware.threads`; VALUE is TOML, or plain text
    for a parameter that is a string. Raises UsageError.
    """
    for setting in settings:
        recipe = _apply(recipe, setting)
    return recipe


def _apply(recipe: Recipe, setting: str) -> Recipe:
    name, equals, text = setting.partition("=")
    name = name.strip()
    known = (*(f"params.{param}" for param in recipe.params), *SEED_NAMES, _THREADS)
    source = _Setting(setting)
    if not equals:
        raise source.error("", "no '='", wanted="NAME=VALUE", found=printable(setting))
    if name not in known:
        meant = f"params.{name}" if name in recipe.params else nearest(name, known)
        raise source.error(
            name,
            "there is no such value to set",
            wanted=f"one of {listing(known)}",
            found=printable(name),
            hint=f"Did you mean '{meant}'?" if meant else None,
        )
    if name in SEED_NAMES:
        seed = _table(source, name, text).integer(name, 0, SEEDS)
        return replace(recipe, determinism=replace(recipe.determinism, seed=seed))
    if name == _THREADS:
        threads = _table(source, name, text).integer(name, 1, COUNTS)
        return replace(recipe, hardware=replace(recipe.hardware, threads=threads))
    param = name.removeprefix("params.")
    value = _param(source, name, text, recipe.params[param])
    return replace(recipe, params={**recipe.params, param: value})


def _table(source: _Setting, name: str, text: str) -> Table:
    return Table(source, "", {name: _parse(text)})


def _parse(text: str) -> object:
    """As TOML; what is no TOML value is plain text."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return document["value"] if len(document) == 1 else text


def _param(source: _Setting, name: str, text: str, before: ParamValue) -> ParamValue:
    parsed = _parse(text)
    if isinstance(before, str) and not isinstance(parsed, str):
        parsed = text
    table = Table(source, "", {name: parsed})
    value = read_param(table, name, parsed)
    if isinstance(before, float) and type(value) is int:
        return float(value)
    if type(value) is not type(before):
        table.wrong_type(name, f"the type in the recipe, {_described(before)}", parsed)
    return value


def _described(value: ParamValue) -> str:
    return describe(list(value) if isinstance(value, tuple) else value)
