"""Read a recipe.toml: bytes to a valid `Recipe`, or one message that says what is wrong."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import PurePosixPath

from modelbuild.errors import InvalidInputError
from modelbuild.spec.recipe import Recipe
from modelbuild.spec.recipe_data import read_data
from modelbuild.spec.recipe_environment import read_environment
from modelbuild.spec.recipe_fields import Source, Table, printable
from modelbuild.spec.recipe_hardware import read_determinism, read_hardware
from modelbuild.spec.recipe_params import read_params
from modelbuild.spec.recipe_paths import code_glob
from modelbuild.spec.recipe_stages import read_stages
from modelbuild.spec.recipe_verify import read_predictions, read_tolerances
from modelbuild.spec.references import variable_suffix
from modelbuild.spec.toml_lines import KeyLines

SCHEMA = 1
_TABLES = (
    *("schema", "model", "environment", "code", "data", "params"),
    *("hardware", "determinism", "stages", "verify"),
)
_PLACE = r"\(at line (\d+), column \d+\)"


def parse_recipe(data: bytes, path: PurePosixPath) -> Recipe:
    """`path` is that of the recipe file, relative to the workspace.

    Raises InvalidInputError, whose first line is `FILE:LINE: what`.
    """
    try:
        text = _decode(data, path)
        source = Source(path, KeyLines(text))
        return _read_recipe(Table(source, "", _load(text, path)))
    except RecursionError:
        raise InvalidInputError(
            f"{path}:1: not a recipe: its values are nested too deeply",
            facts=[("wanted", "a few levels"), ("found", "hundreds")],
        ) from None


def _decode(data: bytes, path: PurePosixPath) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInputError(
            f"{path}:{line}: not UTF-8: byte {error.start} of the file",
            facts=[("wanted", "UTF-8"), ("found", f"0x{data[error.start]:02x}")],
            hint="Save the file as UTF-8.",
        ) from None
    if text.startswith("\ufeff"):
        raise InvalidInputError(
            f"{path}:1: not TOML: it starts with a byte order mark",
            facts=[("wanted", "UTF-8 without it"), ("found", "0xef 0xbb 0xbf")],
            hint="Save the file as UTF-8 without a byte order mark.",
        )
    return text


def _load(text: str, path: PurePosixPath) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # also for integers of thousands of digits
        place = re.search(_PLACE, str(error))
        lines = text.split("\n")
        line = min(int(place.group(1)), len(lines)) if place else len(lines)
        found = lines[line - 1].strip()
        raise InvalidInputError(
            f"{path}:{line}: not TOML: {printable(str(error))}",
            facts=[("wanted", "TOML 1.0"), ("found", printable(found) or "an empty line")],
        ) from None


def _read_recipe(root: Table) -> Recipe:
    _check_schema(root)
    root.only(_TABLES)
    for table, example in (("model", 'name = "..."'), ("environment", 'python = "3.11"')):
        root.require(table, f"[{table}] with {example}")
    model = root.table("model")
    model.only(("name", "description"))
    model.require("name", 'name = "digits"')
    name = model.check_name("name", model.text("name", ""), "the recipe")
    data = read_data(root.table("data"), name)
    params = read_params(root.table("params"))
    hardware = read_hardware(root.table("hardware"))
    stages = read_stages(root.table("stages"), data, params, hardware.processes)
    for group, names in (("data", data), ("params", params), ("stages", stages)):
        _check_variables(root, group, names)
    return Recipe(
        path=root.source.path,
        name=name,
        description=model.text("description", ""),
        environment=read_environment(root.table("environment")),
        code=_read_code(root.table("code")),
        data=data,
        params=params,
        hardware=hardware,
        determinism=read_determinism(root.table("determinism")),
        stages=stages,
        tolerances=read_tolerances(root.table("verify")),
        predictions=read_predictions(root.table("verify"), stages),
        lines=root.source.lines,
    )


def _check_schema(root: Table) -> None:
    root.require("schema", f"schema = {SCHEMA}")
    schema = root.integer("schema", SCHEMA)
    if schema != SCHEMA:
        root.fail(
            "schema",
            f"the recipe has schema {schema}",
            wanted=f"schema = {SCHEMA}",
            found=f"schema = {schema}",
            hint="It was written for a newer version: update modelbuild."
            if schema > SCHEMA
            else None,
        )


def _check_variables(root: Table, group: str, names: Iterable[str]) -> None:
    """Scripts get each name in an environment variable, where `a-b` and `a_b` are the same."""
    seen: dict[str, str] = {}
    for name in names:
        suffix = variable_suffix(name)
        other = seen.setdefault(suffix, name)
        if other != name:
            root.table(group).fail(
                name,
                f"'{other}' and '{name}' in [{group}] differ too little",
                wanted="names that differ in more than case, '.', '-' and '_'",
                found=f"both are in the environment variable {_PREFIXES[group]}{suffix}",
            )


_PREFIXES = {
    "data": "MODELBUILD_DATA_",
    "params": "MODELBUILD_PARAM_",
    "stages": "MODELBUILD_STAGE_",
}


def _read_code(table: Table) -> tuple[str, ...]:
    table.only(("include",))
    globs = table.texts("include", ())
    return tuple(code_glob(table, "include", glob) for glob in globs)
