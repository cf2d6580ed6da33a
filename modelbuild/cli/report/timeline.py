"""The recipe's history: metrics over the commits that changed its lock."""

from __future__ import annotations

from collections.abc import Sequence

from modelbuild.cli.render import number
from modelbuild.cli.report.html import Child, Markup, data, tag
from modelbuild.cli.report.pieces import NOTHING, count, table
from modelbuild.review.history import History, Step

_UNCHARTED = 2
"""A metric that fewer commits claim makes no chart."""


def timeline(found: History | None) -> Child:
    if found is None:
        return tag("p", "git has no commit with a lock of this recipe.")
    columns = list(dict.fromkeys(name for step in found.steps for name in step.metrics))
    charts = [_chart(name, found.steps) for name in columns]
    header = ["commit", "date", *columns, "what moved", "subject", "by"]
    rows = [_row(step, columns) for step in reversed(found.steps)]
    numbers = range(2, 2 + len(columns))
    unreadable = [f"{each.date} {each.id[:8]}" for each in found.unreadable]
    said = f"{count(len(unreadable), 'commit')} whose lock can't be read: {', '.join(unreadable)}"
    return [
        tag("div", charts, class_="charts") if any(charts) else None,
        table("Commits that changed the lock, latest first", header, rows, numbers=numbers),
        tag("p", said, class_="remark") if unreadable else None,
    ]


def _row(step: Step, columns: Sequence[str]) -> list[Child]:
    commit = step.commit
    values = [number(step.metrics[name]) if name in step.metrics else NOTHING for name in columns]
    id_ = tag("code", commit.id[:8], title=commit.id)
    return [id_, tag("time", commit.date), *values, step.cause, commit.subject, commit.author]


def _chart(name: str, steps: Sequence[Step]) -> Markup:
    """Over the commits in their order; nothing where there is nothing to connect."""
    points = [
        [place, step.metrics[name], f"{step.commit.id[:8]} {step.commit.date}: {step.cause}"]
        for place, step in enumerate(steps)
        if name in step.metrics
    ]
    if len(points) < _UNCHARTED:
        return Markup()
    ticks = [step.commit.id[:8] for step in steps]
    content = {"kind": "history", "y": name, "points": points, "ticks": ticks}
    return tag(
        "figure",
        tag("figcaption", tag("strong", name), " over commits"),
        tag("div", data(content), class_="plot"),
        class_="chart",
    )
