"""How the functional comparison of two results reads, and its record."""

from __future__ import annotations

from collections.abc import Iterator

from modelbuild.build.agreement import Compared
from modelbuild.cli.render import agreement_words
from modelbuild.spec.metrics import MetricAgreement, MetricComparison
from modelbuild.verify.verdict import Rebuild


def against_words(rebuild: Rebuild) -> str:
    """`identical to the claim`, `different from the output in the store`, ..."""
    words = {"store": "the output in the store", "claim": "the claim"}[rebuild.against]
    other = "" if rebuild.same_class else f", made on another class ({rebuild.first_class})"
    return agreement_words(rebuild.agreement, words) + other


def compared_lines(compared: Compared) -> Iterator[str]:
    """What is not the same in metrics and predictions, a line each; nothing for identical bits."""
    for metric in compared.metrics.metrics if compared.metrics else ():
        if metric.agreement is not MetricAgreement.IDENTICAL:
            yield f"metric {metric.name}: {_metric(metric)}"
    if compared.predictions:
        yield str(compared.predictions)
    if compared.unchecked:
        yield f"predictions {compared.unchecked}: unchecked, the first output is not here"


def _metric(metric: MetricComparison) -> str:
    if metric.claimed is None or metric.found is None:
        only = metric.claimed if metric.found is None else metric.found
        return f"{metric.agreement}, {only!r}"
    words = f"{metric.agreement}, {metric.claimed!r} first, {metric.found!r} second"
    if not metric.tolerance:
        return words
    allowed = [f"abs {metric.tolerance.abs:g}"] if metric.tolerance.abs else []
    allowed += [f"rel {metric.tolerance.rel:g}"] if metric.tolerance.rel else []
    return f"{words} (tolerance {', '.join(allowed) or 0})"


def compared_json(compared: Compared | None) -> dict[str, object]:
    """`metrics` and `predictions`: null where the bits are identical, or there are none."""
    metrics = compared.metrics if compared else None
    predictions = compared.predictions if compared else None
    return {
        "metrics": [
            {
                "name": metric.name,
                "agreement": str(metric.agreement),
                "first": metric.claimed,
                "second": metric.found,
            }
            for metric in metrics.metrics
        ]
        if metrics
        else None,
        "predictions": predictions.to_json() if predictions else None,
        "predictions_unchecked": compared.unchecked if compared else None,
    }
