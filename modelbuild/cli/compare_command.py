"""`modelbuild compare`"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelbuild.cli.arguments import Parser
from modelbuild.cli.compare_targets import Kind, kind_of
from modelbuild.cli.metric_words import mean_lines, metric_json, sentence
from modelbuild.cli.progress import progress
from modelbuild.cli.targets import recipe_path, workspace_naming
from modelbuild.sources.locations import read_locations
from modelbuild.store.store import Store
from modelbuild.verify.compare_recipes import CompareReport, CompareRequest, compare

if TYPE_CHECKING:
    from argparse import Namespace


def parser() -> Parser:
    made = Parser(
        "compare",
        "Compare the metrics of two recipes, A and B, or of a recipe and an experiment with it.\n"
        "With --seeds both are built with the same seeds, and it is said of each metric whether\n"
        "the difference is larger than seed noise. Or of two runs, by their ids; or of the locks\n"
        "at two git revisions, of which nothing is built.",
        "modelbuild compare recipe.toml --set params.lr=0.01 --seeds 5",
    )
    made.add_argument(
        "first", metavar="A", help="recipe: file, folder or name; or a run, or a git revision"
    )
    made.add_argument(
        "second",
        metavar="B",
        nargs="?",
        help="another; without it, A with --set, or the working tree",
    )
    made.add_argument(
        "recipe", metavar="RECIPE", nargs="?", help="of two revisions: this one, else all"
    )
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="B with another value: params.lr=0.01",
    )
    made.add_argument("--seeds", type=int, metavar="N", help="build both with these many seeds")
    made.add_argument(
        "--metric", action="append", default=[], metavar="NAME", help="only this metric"
    )
    made.add_argument("--json", action="store_true", help="print the comparison as JSON")
    made.add_argument("--quiet", action="store_true", help="no progress")
    return made


def run(arguments: Sequence[str]) -> int:
    options = parser().parse(arguments)
    kind = kind_of([options.first, *filter(None, [options.second])], options)
    if kind is Kind.RUN:
        from modelbuild.cli.compared_runs import print_compared

        return print_compared(options.first, options.second, as_json=options.json)
    if kind is Kind.REVISION:
        from modelbuild.cli.compared_revisions import print_compared_revisions

        return print_compared_revisions(options)
    return _compare_recipes(options)


def _compare_recipes(options: Namespace) -> int:
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
        lines += [f"{name}: {sentence(metric)}", *(f"    {line}" for line in mean_lines(metric))]
    if not report.metrics:
        lines.append("no metric to compare")
    lines += [f"note: {note}" for note in report.notes]
    if report.metrics and not any(metric.paired for metric in report.metrics.values()):
        lines.append(
            "One seed each: whether a difference is larger than seed noise is not known. "
            "To find out: --seeds 5"
        )
    return lines


def to_json(report: CompareReport) -> dict[str, object]:
    """The documented record of `modelbuild compare --json`."""
    return {
        "first": {"recipe": report.first.name, "settings": []},
        "second": {"recipe": report.second.name, "settings": list(report.settings)},
        "seeds": list(report.seeds),
        "metrics": {name: metric_json(each) for name, each in report.metrics.items()},
        "notes": list(report.notes),
        "problems": [str(problem) for problem in report.problems],
        "exit_code": report.exit_code,
    }
