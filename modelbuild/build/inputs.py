"""What a stage is given: its folders, its command line, its variables, its context file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelbuild.errors import DigestMismatchError
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import LockedRecipe
from modelbuild.spec.processes import MASTER_PORT, launched
from modelbuild.spec.recipe import Recipe, Stage
from modelbuild.spec.references import expand, render_param, variable_suffix
from modelbuild.spec.variables import stage_variables

OUT = "/build/out"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageInputs:
    """All that one stage reads, on this machine."""

    recipe: Recipe
    stage: Stage
    locked: LockedRecipe
    data: Mapping[str, Path]
    """By table name: a file or a folder."""
    upstream: Mapping[str, Path]
    """Outputs by the name of the stage in this recipe."""

    @property
    def code(self) -> tuple[str, ...]:
        """Paths of the code that the stage sees, relative to the recipe."""
        chosen = self.locked.stages[self.stage.name].code
        return tuple(sorted(self.locked.code)) if chosen is None else chosen

    @property
    def data_mounts(self) -> dict[str, Path]:
        """Below /build/data: `NAME` for a folder, `NAME/FILE` for a single file."""
        return {self._data_place(name): path for name, path in self.data.items()}

    def _data_place(self, name: str) -> str:
        locked = self.locked.data.get(name)
        return f"{name}/{locked.file}" if locked and locked.file is not None else name

    def arguments(self, port: int = MASTER_PORT) -> list[str]:
        """The command, every `{...}` replaced; several processes meet at `port`."""
        values = self._values()
        run = [expand(argument, values) for argument in self.stage.run]
        return list(launched(run, self.stage.processes, port))

    def variables(self) -> dict[str, str]:
        """The whole environment of the stage."""
        context = self.context()
        inputs = {
            "MODELBUILD_OUT": OUT,
            "MODELBUILD_SEED": str(self.recipe.determinism.seed),
            "MODELBUILD_CONTEXT": "/build/context.json",
            **_named("DATA", context["data"]),
            **_named("STAGE", context["stages"]),
            **_named("PARAM", {n: render_param(self.recipe.params[n]) for n in self.stage.params}),
        }
        values = self._values()
        own = {name: expand(value, values) for name, value in self.stage.env.items()}
        return {**stage_variables(self.recipe.hardware, self.recipe.determinism), **inputs, **own}

    def context(self) -> dict[str, dict[str, str]]:
        return {
            "data": {name: f"/build/data/{self._data_place(name)}" for name in self.data},
            "stages": {name: f"/build/stages/{name}" for name in self.upstream},
        }

    def context_file(self) -> bytes:
        """JSON with seed, out, data, stages and params as they are typed in the recipe."""
        params = {name: self.recipe.params[name] for name in self.stage.params}
        document = {
            **self.context(),
            "out": OUT,
            "seed": self.recipe.determinism.seed,
            "params": params,
        }
        return (json.dumps(document, sort_keys=True, indent=1) + "\n").encode()

    def _values(self) -> dict[str, str]:
        context = self.context()
        return {
            "out": OUT,
            "seed": str(self.recipe.determinism.seed),
            "threads": str(self.recipe.hardware.threads),
            **{f"data.{name}": path for name, path in context["data"].items()},
            **{f"stages.{name}": path for name, path in context["stages"].items()},
            **{f"params.{n}": render_param(self.recipe.params[n]) for n in self.stage.params},
        }

    def snapshot_code(self, workspace: Path, target: Path) -> None:
        """Copy the stage's code to `target`. Raises DigestMismatchError if it moved meanwhile."""
        source = workspace / self.recipe.folder
        target.mkdir()
        for path in self.code:
            content = (source / path).read_bytes()
            locked = self.locked.code[path]
            found = Digest.of(content)
            if found != locked.digest:
                raise DigestMismatchError(
                    f"code '{path}' of {self.recipe.path} changed after it was locked",
                    facts=[("locked", str(locked.digest)), ("found", str(found))],
                    hint="Build again when the file is as it should be.",
                )
            copy = target / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
            copy.chmod(0o555 if locked.executable else 0o444)


def _named(kind: str, values: Mapping[str, str]) -> dict[str, str]:
    return {f"MODELBUILD_{kind}_{variable_suffix(name)}": text for name, text in values.items()}
