"""What came out: metrics with their spread, and the runs beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelbuild.cli.render import number, seconds
from modelbuild.cli.report.html import Child, Markup, tag
from modelbuild.cli.report.pieces import NOTHING, count, folded, setting, table, varying
from modelbuild.cli.spread import decimals
from modelbuild.review.noise import against_noise
from modelbuild.review.report import RecipeReport, RunOfStage, StageReport
from modelbuild.spec.lock import LockedSeeds
from modelbuild.spec.recipe import Tolerance

SHOWN_RUNS = 20


def metrics(report: RecipeReport) -> Child:
    """Of the current runs, else as claimed; with what the lock has on record of seeds."""
    tolerances = report.recipe.tolerances if report.recipe else {}
    rows = [row for stage in report.stages for row in _metric_rows(stage, tolerances)]
    if not rows:
        return tag("p", "No stage has metrics on record.")
    header = ["metric", "stage", "value", "over seeds", "tolerance"]
    caption = "Metrics as claimed in the lock"
    return table(caption, header, rows, numbers=[2])


def _metric_rows(stage: StageReport, tolerances: Mapping[str, Tolerance]) -> list[list[Child]]:
    claims = stage.locked.current_claims
    seeds = stage.locked.current_seeds
    several = len(claims) > 1
    return [
        [
            name,
            stage.id.stage + (f" on class {claim.numeric_class}" if several else ""),
            tag("data", number(value), value=repr(value), title=repr(value)),
            _seeds(seeds.get(name), value),
            _tolerance(tolerances.get(name)),
        ]
        for claim in claims
        for name, value in claim.metrics.items()
    ]


def _seeds(each: LockedSeeds | None, value: float) -> str:
    if each is None:
        return "not on record"
    spread = each.statistics
    usual = {True: ", this one is usual", False: ", this one is unusual", None: ""}
    return (
        f"mean {decimals(spread.mean, spread)}, deviation {decimals(spread.deviation, spread)}, "
        f"{decimals(spread.least, spread)} to {decimals(spread.most, spread)} "
        f"({count(spread.seeds, 'seed')}{usual[spread.usual(value)]})"
    )


def _tolerance(tolerance: Tolerance | None) -> str:
    if tolerance is None:
        return NOTHING
    words = [f"±{tolerance.abs:g}"] if tolerance.abs else []
    words += [f"±{tolerance.rel:.4g} of it"] if tolerance.rel else []
    return " or ".join(words) or "0"


def runs(report: RecipeReport) -> list[Markup]:
    """A table for each stage that was run more than once, latest first."""
    return [_runs(stage) for stage in report.stages if len(stage.runs) > 1]


def _runs(stage: StageReport) -> Markup:
    shown, older = stage.runs[:SHOWN_RUNS], stage.runs[SHOWN_RUNS:]
    settings = varying(stage.runs)
    names = sorted({name for each in stage.runs for name in each.run.realisation.metrics})
    header = ["run", *settings, *names, "time", "built (UTC)"]
    first = 1 + len(settings)
    numbers = range(first, first + len(names) + 1)

    def listed(found: Sequence[RunOfStage], caption: str) -> Markup:
        rows = [_run_row(each, stage, settings, names) for each in found]
        return table(caption, header, rows, numbers=numbers)

    caption = f"Runs of {stage.id.stage} on record here, latest first"
    if not older:
        return listed(shown, caption)
    more = folded(f"{count(len(older), 'older run')}", listed(older, f"Older {caption.lower()}"))
    return tag("div", listed(shown, caption), more)


def _run_row(
    each: RunOfStage, stage: StageReport, settings: Sequence[str], names: Sequence[str]
) -> list[Child]:
    realisation = each.run.realisation
    is_current = each is stage.current
    mark = tag("span", "current", class_="mark") if is_current else None
    absent = None if each.here else tag("span", "not on this machine", class_="about")
    isolation = None if realisation.isolation == "full" else f"isolation {realisation.isolation}"
    return [
        [tag("code", each.run.id), " ", mark, absent, isolation],
        *(setting(each.settings.get(name)) for name in settings),
        *(_compared(name, each, stage) for name in names),
        seconds(realisation.resources.wall_seconds),
        tag("time", f"{each.run.built:%Y-%m-%d %H:%M}"),
    ]


def _compared(name: str, each: RunOfStage, stage: StageReport) -> Child:
    """A metric, how far it is from the current run's, and what seeds say of that."""
    value = each.run.realisation.metrics.get(name)
    if value is None:
        return NOTHING
    base = stage.current.run.realisation.metrics.get(name) if stage.current else None
    words: list[Child] = [tag("data", number(value), value=repr(value), title=repr(value))]
    if base is None or each is stage.current:
        return words
    if value == base:
        return [*words, tag("small", "equal")]
    seeds = stage.locked.current_seeds.get(name)
    noise = against_noise(base, value, seeds.statistics, None) if seeds else None
    return [*words, tag("small", f"{value - base:+.3g}" + (f", {noise}" if noise else ""))]
