"""The `[verify]` tables of a recipe: how far results may lie apart at level `functional`."""

from __future__ import annotations

from collections.abc import Mapping

from modelbuild.spec.recipe import Predictions, Stage, Tolerance
from modelbuild.spec.recipe_fields import Table, did_you_mean, listing, printable
from modelbuild.spec.recipe_paths import inner_path


def read_tolerances(verify: Table) -> dict[str, Tolerance]:
    verify.only(("metrics", "predictions"))
    found = {}
    for name, table in verify.table("metrics").tables("As in: accuracy = { abs = 0.002 }"):
        table.only(("abs", "rel"))
        found[name] = _tolerance(table)
    return found


def read_predictions(verify: Table, stages: Mapping[str, Stage]) -> dict[str, Predictions]:
    found = {}
    predictions = verify.table("predictions")
    for name, table in predictions.tables('As in: train = { file = "golden.npy", abs = 0.001 }'):
        if name not in stages:
            predictions.fail(
                name,
                f"[{printable(table.key)}] names no stage",
                wanted=f"one of {listing(stages)}",
                found=printable(name),
                hint=did_you_mean(name, stages),
            )
        table.only(("file", "abs", "rel"))
        table.require("file", 'file = "golden.npy"')
        file = inner_path(table, "file", table.text("file", ""), "the output")
        found[name] = Predictions(file=file, tolerance=_tolerance(table))
    return found


def _tolerance(table: Table) -> Tolerance:
    if not {"abs", "rel"}.intersection(table.values):
        table.fail(
            "",
            f"[{printable(table.key)}] has no tolerance",
            wanted="'abs', 'rel' or both",
            found=listing(table.values) if table.values else "an empty table",
        )
    return Tolerance(abs=table.tolerance("abs"), rel=table.tolerance("rel"))
