"""The recipe's history: metrics over the commits that changed its lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelbuild.cli.render import number
from modelbuild.cli.report.html import Child, Markup, data, tag
from modelbuild.cli.report.pieces import NOTHING, count, table
from modelbuild.review.history import History, Step


def timeline(found: History | None) -> Child:
    if found is None:
        return tag("p", "git has no commit with a lock of this recipe.")
    columns = list(dict.fromkeys(name for step in found.steps for name in step.metrics))
    header = ["commit", "date", *columns, "what moved", "subject", "by"]
    rows = [_row(step, columns) for step in reversed(found.steps)]
    numbers = range(2, 2 + len(columns))
    unreadable = [f"{each.date} {each.id[:8]}" for each in found.unreadable]
    said = f"{count(len(unreadable), 'commit')} whose lock can't be read: {', '.join(unreadable)}"
    return [
        *_charts(columns, found.steps),
        table("Commits that changed the lock, latest first", header, rows, numbers=numbers),
        tag("p", said, class_="remark") if unreadable else None,
    ]


def _charts(columns: Sequence[str], steps: Sequence[Step]) -> Iterator[Child]:
    """Of the metrics that moved; the others are named."""
    claimed = {
        name: [each.metrics[name] for each in steps if name in each.metrics] for name in columns
    }
    moved = [name for name in columns if len(set(claimed[name])) > 1]
    same = [name for name in columns if len(claimed[name]) > 1 and name not in moved]
    if moved:
        yield tag("div", [_chart(name, steps) for name in moved], class_="charts")
    if same:
        yield tag("p", f"The same in every commit: {', '.join(same)}.", class_="remark")


def _row(step: Step, columns: Sequence[str]) -> list[Child]:
    commit = step.commit
    values = [number(step.metrics[name]) if name in step.metrics else NOTHING for name in columns]
    id_ = tag("code", commit.id[:8], title=commit.id)
    return [id_, tag("time", commit.date), *values, step.cause, commit.subject, commit.author]


def _chart(name: str, steps: Sequence[Step]) -> Markup:
    """Over the commits in their order."""
    points = [
        [place, step.metrics[name], f"{step.commit.id[:8]} {step.commit.date}: {step.cause}"]
        for place, step in enumerate(steps)
        if name in step.metrics
    ]
    ticks = [step.commit.id[:8] for step in steps]
    content = {"kind": "history", "y": name, "points": points, "ticks": ticks}
    return tag(
        "figure",
        tag("figcaption", tag("strong", name), " over commits"),
        tag("div", data(content), class_="plot"),
        class_="chart",
    )
