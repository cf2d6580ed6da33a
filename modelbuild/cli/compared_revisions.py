"""What the locks at two git revisions say of metrics, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from modelbuild.cli.metric_words import mean_lines, metric_json, sentence
from modelbuild.cli.targets import recipe_name, workspace_of
from modelbuild.review.compare_revisions import RevisionsReport, compare_revisions
from modelbuild.review.revisions import commit_of, lock_at, lock_of_revision

if TYPE_CHECKING:
    from argparse import Namespace


def print_compared_revisions(options: Namespace) -> int:
    """Of `options.first` and `options.second`, else the working tree. Raises UsageError."""
    workspace = workspace_of(None)
    first = lock_of_revision(options.first, workspace)
    second = (
        lock_of_revision(options.second, workspace)
        if options.second is not None
        else lock_at(None, workspace)
    )
    recipe = None if options.recipe is None else recipe_name(options.recipe, workspace)
    report = compare_revisions(first, second, recipe, options.metric)
    commits = (
        commit_of(options.first, workspace),
        commit_of(options.second, workspace) if options.second is not None else None,
    )
    if options.json:
        import json

        print(json.dumps(_to_json(report, commits), indent=2))
    else:
        print("\n".join(_lines(report, commits)))
    return 0


def _lines(report: RevisionsReport, commits: tuple[str | None, str | None]) -> Iterator[str]:
    for letter, version, commit in zip("AB", (report.first, report.second), commits, strict=True):
        yield f"{letter}: {version.label}" + (f" (git revision {commit[:10]})" if commit else "")
    for compared in report.recipes:
        yield compared.name
        for name, metric in compared.metrics.items():
            yield f"  {name}: {sentence(metric)}"
            yield from (f"      {line}" for line in mean_lines(metric))
        if not compared.metrics:
            yield "  no metric to compare"
        yield from (f"  note: {note}" for note in compared.notes)
    if report.unchanged:
        yield f"unchanged: {', '.join(report.unchanged)}"
    yield from (f"note: {note}" for note in report.notes)


def _to_json(report: RevisionsReport, commits: tuple[str | None, str | None]) -> dict[str, object]:
    return {
        "first": {"revision": report.first.label, "commit": commits[0]},
        "second": {"revision": report.second.label, "commit": commits[1]},
        "recipes": {
            each.name: {
                "metrics": {name: metric_json(metric) for name, metric in each.metrics.items()},
                "notes": list(each.notes),
            }
            for each in report.recipes
        },
        "unchanged": list(report.unchanged),
        "notes": list(report.notes),
    }
