"""What `[verify]` names must be there: a tolerance for nothing is a slip of the pen."""

from __future__ import annotations

import os
from collections.abc import Mapping

from modelbuild.errors import InvalidInputError
from modelbuild.spec.recipe import Recipe
from modelbuild.store.realisations import Realisation
from modelbuild.store.store import Store


def check_tolerances(recipe: Recipe, stages: Mapping[str, Realisation], store: Store) -> None:
    """Raise InvalidInputError for a metric that no stage has, and a file that its stage has not.

    `stages` are those of the recipe that have an output here.
    """
    found = {name for realisation in stages.values() for name in realisation.metrics}
    for name in recipe.tolerances:
        if name not in found:
            raise InvalidInputError(
                f"{recipe.where(f'verify.metrics.{name}')}: no stage has a metric '{name}'",
                facts=[("found", ", ".join(sorted(found)) or "no metrics")],
            )
    for name, predictions in recipe.predictions.items():
        if name not in stages:
            continue
        output = stages[name].path(store)
        if not (output / predictions.file).is_file():
            raise InvalidInputError(
                f"{recipe.where(f'verify.predictions.{name}.file')}: stage '{name}' wrote no file"
                f" '{predictions.file}'",
                facts=[("found", ", ".join(sorted(os.listdir(output))[:10]))],
            )
