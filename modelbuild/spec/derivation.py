"""The derivation: all that determines a stage's output, as pure data.

A derivation names upstream stages by the digests of their derivations, so it follows from
recipe and lock alone; a resolved derivation names them by the digests of their outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelbuild.errors import InvalidInputError
from modelbuild.spec.canonical import Json, canonical_digest
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import LockedEnvironment, LockedRecipe
from modelbuild.spec.processes import launched
from modelbuild.spec.recipe import Recipe, RecipeData, Stage
from modelbuild.spec.variables import stage_variables

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class StageId:
    """A stage of the workspace."""

    recipe: str
    stage: str

    def __str__(self) -> str:
        return f"{self.recipe}:{self.stage}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Derivation:
    """`fields` without the upstream stages; `upstream` maps input names to their digests.

    An input name is `stages.NAME` or `data.NAME`.
    """

    fields: Mapping[str, Json]
    upstream: Mapping[str, Digest]

    @property
    def digest(self) -> Digest:
        upstream = {name: str(digest) for name, digest in self.upstream.items()}
        return canonical_digest({**self.fields, "upstream": upstream})

    def resolve(self, outputs: Mapping[str, Digest]) -> Derivation:
        """The resolved derivation. `outputs` has the same names as `upstream`."""
        return Derivation(fields=self.fields, upstream={n: outputs[n] for n in self.upstream})


def upstream_stages(
    recipe: Recipe, stage: Stage, recipes: Mapping[str, Recipe]
) -> dict[str, StageId]:
    """The stages whose outputs `stage` reads, by input name."""
    found = {f"stages.{name}": StageId(recipe.name, name) for name in stage.stages}
    for name in stage.data:
        data = recipe.data[name]
        if isinstance(data, RecipeData):
            found[f"data.{name}"] = _named_stage(recipe, name, data, recipes)
    return found


def _named_stage(
    recipe: Recipe, name: str, data: RecipeData, recipes: Mapping[str, Recipe]
) -> StageId:
    other = recipes.get(data.recipe)
    stage = data.stage or (other.last_stage if other else "")
    if other is None or stage not in other.stages:
        wanted = f"{data.recipe}:{stage}" if data.stage else data.recipe
        raise InvalidInputError(
            f"{recipe.where(f'data.{name}')}: data '{name}' names no stage of this workspace",
            facts=[("wanted", wanted), ("found", ", ".join(sorted(recipes)))],
        )
    return StageId(data.recipe, stage)


def derive(
    recipe: Recipe,
    stage: Stage,
    locked: LockedRecipe,
    environment: LockedEnvironment,
    code: tuple[str, ...] | None,
    upstream: Mapping[str, Digest],
) -> Derivation:
    """The derivation of one stage.

    `code` are the paths that the stage sees (None: all), `upstream` the digests of the
    derivations of `upstream_stages`. The stage's and the recipe's names are not part of it,
    nor are level and tolerances: they do not change what comes out.
    """
    visible = sorted(locked.code) if code is None else sorted(code)
    hardware = recipe.hardware
    determinism = recipe.determinism
    fields: dict[str, Json] = {
        "schema": SCHEMA,
        "environment": str(environment.digest),
        "base": recipe.environment.base,
        "runtime": locked.runtime,
        "code": {
            path: [str(locked.code[path].digest), locked.code[path].executable] for path in visible
        },
        "data": {
            name: [str(locked.data[name].digest), locked.data[name].file]
            for name in stage.data
            if name in locked.data
        },
        "params": {name: _json(locked.params[name]) for name in stage.params},
        "run": list(launched(stage.run, stage.processes)),
        "env": dict(stage.env),
        "metrics": stage.metrics,
        "variables": stage_variables(hardware, determinism),
        "seed": determinism.seed,
        "tf32": determinism.tf32,
        "allow": sorted(determinism.allow),
        "hardware": {
            "device": hardware.device.value,
            "threads": hardware.threads,
            "cpu": hardware.cpu,
            "gpu": hardware.gpu,
            "gpus": hardware.gpus,
            "processes": stage.processes,
        },
    }
    return Derivation(fields=fields, upstream=dict(upstream))


def _json(value: object) -> Json:
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    assert isinstance(value, str | int | float | bool)
    return value
