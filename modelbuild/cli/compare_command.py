"""`modelbuild compare`"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from modelbuild.cli.arguments import Parser
from modelbuild.cli.progress import progress
from modelbuild.cli.render import number
from modelbuild.cli.spread import decimals, statistics_json, statistics_words
from modelbuild.cli.targets import recipe_path, workspace_naming, workspace_of
from modelbuild.sources.locations import read_locations
from modelbuild.sources.lock_on_disk import read_lock
from modelbuild.spec.seed_statistics import PairedDifference, SeedStatistics
from modelbuild.store.store import Store
from modelbuild.verify.compare_recipes import (
    ComparedMetric,
    CompareReport,
    CompareRequest,
    compare,
)

_RUN = re.compile(r"(b3:)?[0-9a-f]{8,64}")


def _is_run(target: str | None) -> bool:
    """An id of `modelbuild runs`, and not a file, nor a recipe of the lock."""
    if target is None or not _RUN.fullmatch(target) or Path(target).exists():
        return False
    return target not in read_lock(workspace_of(None)).recipes


def run(arguments: Sequence[str]) -> int:
    parser = Parser(
        "compare",
        "Compare the metrics of two recipes, A and B, or of a recipe and an experiment with it.\n"
        "With --seeds both are built with the same seeds, and it is said of each metric whether\n"
        "the difference is larger than seed noise. Or of two runs, by their ids.",
        "modelbuild compare recipe.toml --set params.lr=0.01 --seeds 5",
    )
    parser.add_argument("first", metavar="A", help="recipe: file, folder or name; or a run")
    parser.add_argument("second", metavar="B", nargs="?", help="another; without it, A with --set")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="B with another value: params.lr=0.01",
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="build both with these many seeds")
    parser.add_argument(
        "--metric", action="append", default=[], metavar="NAME", help="only this metric"
    )
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse(arguments)
    if _is_run(options.first) and _is_run(options.second):
        from modelbuild.cli.compared_runs import print_compared

        return print_compared(options.first, options.second, as_json=options.json)
    workspace = workspace_naming(options.first)
    first = recipe_path(options.first, workspace)
    with progress(quiet=options.quiet) as observer:
        report = compare(
            CompareRequest(
                workspace=workspace,
                store=Store.open(),
                first=first,
                second=recipe_path(options.second, workspace) if options.second else first,
                settings=tuple(options.set),
                seeds=options.seeds,
                metrics=options.metric,
                locations=read_locations(os.environ),
                observer=observer,
            )
        )
    if options.json:
        import json

        print(json.dumps(to_json(report), indent=2))
    else:
        print("\n".join(_lines(report)))
    for error in report.problems:
        print(f"error: {error}", file=sys.stderr)
    return report.exit_code


def _lines(report: CompareReport) -> list[str]:
    with_settings = f" with {', '.join(report.settings)}" if report.settings else ""
    lines = [f"A: {report.first.name}", f"B: {report.second.name}{with_settings}"]
    for name, metric in report.metrics.items():
        lines += [f"{name}: {_sentence(metric)}", *(f"    {line}" for line in _means(metric))]
    if not report.metrics:
        lines.append("no metric to compare")
    lines += [f"note: {note}" for note in report.notes]
    if report.metrics and not any(metric.paired for metric in report.metrics.values()):
        lines.append(
            "One seed each: whether a difference is larger than seed noise is not known. "
            "To find out: --seeds 5"
        )
    return lines


def _sentence(metric: ComparedMetric) -> str:
    """`B is higher by 0.012 (95 % CI 0.004 to 0.020; 5 seeds; p 0.012): larger than seed noise`"""
    paired = metric.paired
    if paired is None:
        return f"A {number(metric.first)}, B {number(metric.second)}: {_direction(metric)}"
    count = paired.difference.seeds
    if paired.verdict == "equal":
        return f"the same with all {count} seeds"
    low, high = paired.difference.low, paired.difference.high
    if metric.difference < 0:
        low, high = -high, -low
    low_words, high_words = (decimals(value, paired.difference) for value in (low, high))
    return (
        f"{_direction(metric)} (95 % CI {low_words} to {high_words}; {count} seeds; "
        f"{_p_words(paired.p)}): {_verdict(paired)}"
    )


def _direction(metric: ComparedMetric) -> str:
    if metric.difference == 0:
        return "no difference"
    paired = metric.paired
    by = abs(metric.difference)
    size = decimals(by, paired.difference) if paired else number(by)
    return f"B is {'higher' if metric.difference > 0 else 'lower'} by {size}"


def _p_words(p: float) -> str:
    return "p below 0.0001" if p < 0.0001 else f"p {p:.2g}"


def _verdict(paired: PairedDifference) -> str:
    if paired.verdict == "unclear":
        return (
            "unclear: larger than seed noise if it were the only metric "
            f"({_p_words(paired.adjusted_p)} among all)"
        )
    return paired.verdict


def _means(metric: ComparedMetric) -> list[str]:
    spreads = {"A": metric.first_spread, "B": metric.second_spread}
    lines = [f"{label}: {statistics_words(each)}" for label, each in spreads.items() if each]
    paired = metric.paired
    if paired and paired.verdict != "equal":
        lines.append(
            f"seed by seed: B higher {paired.higher}, equal {paired.equal}, lower {paired.lower}"
        )
    return lines


def to_json(report: CompareReport) -> dict[str, object]:
    """The documented record of `modelbuild compare --json`."""
    return {
        "first": {"recipe": report.first.name, "settings": []},
        "second": {"recipe": report.second.name, "settings": list(report.settings)},
        "seeds": list(report.seeds),
        "metrics": {name: _metric_json(each) for name, each in report.metrics.items()},
        "notes": list(report.notes),
        "problems": [str(problem) for problem in report.problems],
        "exit_code": report.exit_code,
    }


def _metric_json(metric: ComparedMetric) -> dict[str, object]:
    paired = metric.paired
    return {
        "first": metric.first,
        "second": metric.second,
        "difference": metric.difference,
        "low": paired.difference.low if paired else None,
        "high": paired.difference.high if paired else None,
        "p": paired.p if paired else None,
        "adjusted_p": paired.adjusted_p if paired else None,
        "higher": paired.higher if paired else None,
        "equal": paired.equal if paired else None,
        "lower": paired.lower if paired else None,
        "verdict": paired.verdict if paired else None,
        "first_spread": _spread_json(metric.first_spread),
        "second_spread": _spread_json(metric.second_spread),
    }


def _spread_json(spread: SeedStatistics | None) -> dict[str, object] | None:
    return statistics_json(spread) if spread else None
