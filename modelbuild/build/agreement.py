"""How two results of one derivation relate: bits first, always; then what they are good for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.spec.digest import Digest
from modelbuild.spec.metrics import MetricsComparison, compare_metrics
from modelbuild.spec.recipe import Level, Recipe
from modelbuild.store.realisations import Realisation
from modelbuild.store.store import Store

if TYPE_CHECKING:
    from modelbuild.build.predictions import PredictionsComparison


class Agreement(StrEnum):
    IDENTICAL = "identical"
    WITHIN_TOLERANCE = "within tolerance"
    DIFFERENT = "different"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What came out of a stage once."""

    output: Digest
    metrics: Mapping[str, float] = field(default_factory=dict)
    path: Path | None = None
    """Of the output; None where it is not at hand."""


def result_of(realisation: Realisation, store: Store) -> Result:
    return Result(
        output=realisation.output,
        metrics=realisation.metrics,
        path=realisation.path(store),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """Two results, compared."""

    agreement: Agreement
    metrics: MetricsComparison | None = None
    """None where the bits are identical, or neither has metrics."""
    predictions: PredictionsComparison | None = None
    """None where the bits are identical, or none are declared, or one output is not at hand."""
    unchecked: str | None = None
    """The file of predictions that should have been compared, and of which one is missing."""

    @property
    def measured(self) -> bool:
        """Whether there was anything to compare but bits."""
        return self.metrics is not None or self.predictions is not None


def compare_results(
    first: Result, second: Result, recipe: Recipe, stage: str, *, same_class: bool
) -> Compared:
    """Identical bits; else within tolerance where that can be told; else different.

    Metrics must be within the tolerances of `[verify.metrics]`: where none are declared, equal.
    Predictions must be within theirs, where declared and both outputs are at hand. Without any
    tolerance, this is asked only at level `functional`, and between two classes.
    """
    if first.output == second.output:
        return Compared(agreement=Agreement.IDENTICAL)
    measured = first.metrics or second.metrics
    metrics = compare_metrics(first.metrics, second.metrics, recipe.tolerances)
    predictions = unchecked = None
    declared = recipe.predictions.get(stage)
    if declared and first.path and second.path:
        from modelbuild.build.predictions import compare_predictions

        predictions = compare_predictions(first.path, second.path, declared)
    elif declared:
        unchecked = declared.file
    functional = recipe.determinism.level is Level.FUNCTIONAL or not same_class
    tolerant = functional or bool(recipe.tolerances or declared)
    checks = [metrics.within] if measured else []
    checks += [predictions.within] if predictions else []
    within = tolerant and bool(checks) and all(checks)
    return Compared(
        agreement=Agreement.WITHIN_TOLERANCE if within else Agreement.DIFFERENT,
        metrics=metrics if measured else None,
        predictions=predictions,
        unchecked=unchecked,
    )


def breaks(compared: Compared, level: Level) -> bool:
    """Whether a second result on the same class breaks the promise of the level.

    `functional` promises metrics and predictions: a stage without any is judged by the stages
    after it.
    """
    if level is Level.RECORDED:
        return False
    if level is Level.FUNCTIONAL:
        return compared.measured and compared.agreement is Agreement.DIFFERENT
    return compared.agreement is not Agreement.IDENTICAL
