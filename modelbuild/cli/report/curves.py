"""Charts: curves of a training beside those of other runs, and metrics over commits.

A chart is data for the script, and the same as a table: without JavaScript, and for whoever can't
see it, the table is what there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelbuild.cli.render import number
from modelbuild.cli.report.html import Child, Markup, data, tag
from modelbuild.cli.report.pieces import count, folded, settings_words, table, varying
from modelbuild.review.curves import Curve, CurveLog
from modelbuild.review.report import DeclaredCurves, RecipeReport, RunCurves, StageReport

_SPLIT = re.compile(r"(?:(.*)[_/.-])?(train|training|val|valid|validation|eval|test|dev)[_/.-](.+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    run: int
    """Place of its run among those drawn: its colour."""
    label: str
    split: str
    """`train`, `val`, ..., or empty: how it is dashed."""
    curve: Curve


def curves(report: RecipeReport) -> list[Markup]:
    return [
        section
        for stage in report.stages
        for declared in stage.curves
        for section in _declared(stage, declared)
    ]


def _declared(stage: StageReport, declared: DeclaredCurves) -> Iterator[Markup]:
    yield tag("h4", tag("code", declared.file), f" of {stage.id.stage}")
    if declared.missing:
        yield tag("p", f"Curves of the current run: {declared.missing}.", class_="remark")
    if not declared.logs:
        return
    labels = _labels(declared.logs)
    if len(labels) > 1:
        yield _legend(labels, declared)
    charts: dict[str, list[Line]] = {}
    for place, (each, label) in enumerate(zip(declared.logs, labels, strict=True)):
        for curve in each.log.curves:
            name, split = _split(curve.name)
            line = Line(run=place, label=label, split=split, curve=curve)
            charts.setdefault(name, []).append(line)
    axis = declared.logs[0].log.axis
    yield tag("div", [_chart(name, axis, lines) for name, lines in charts.items()], class_="charts")
    if remarks := list(_remarks(declared, labels)):
        yield tag("ul", [tag("li", remark) for remark in remarks], class_="remark")


def _split(name: str) -> tuple[str, str]:
    """`train_loss` is the split `train` of `loss`."""
    found = _SPLIT.fullmatch(name)
    if not found:
        return name, ""
    before, split, rest = found.groups()
    return (f"{before}.{rest}" if before else rest), split


def _labels(logs: Sequence[RunCurves]) -> list[str]:
    """Each run by what sets it apart from the others."""
    names = varying([each.run for each in logs])
    labels = []
    for each in logs:
        words = settings_words({name: each.run.settings.get(name) for name in names})
        start = "current" if each.current else each.run.run.id
        labels.append(f"{start}: {words}" if words else start)
    return labels


def _legend(labels: Sequence[str], declared: DeclaredCurves) -> Markup:
    items = [
        tag("li", tag("span", class_=f"swatch c{place}", aria_hidden="true"), label)
        for place, label in enumerate(labels)
    ]
    more = f"and {count(declared.more, 'other run')} that are not drawn"
    return tag("ul", items, tag("li", more) if declared.more else None, class_="legend")


def _chart(name: str, axis: str, lines: Sequence[Line]) -> Markup:
    splits = list(dict.fromkeys(line.split for line in lines))
    content = {
        "kind": "curve",
        "x": axis,
        "y": name,
        "lines": [
            {
                "color": line.run,
                "dash": splits.index(line.split),
                "label": " ".join(filter(None, (line.split, line.label))),
                "points": [[x, _drawn(y)] for x, y in line.curve.points],
            }
            for line in lines
        ],
    }
    dashes = [
        tag("span", tag("span", class_=f"dash d{i}", aria_hidden="true"), split, class_="split")
        for i, split in enumerate(splits)
        if split
    ]
    rows = [_curve_row(line, axis) for line in lines]
    header = ["run", "values", "first", "last", "lowest", "highest"]
    numbers = [1, 2, 3, 4, 5]
    return tag(
        "figure",
        tag("figcaption", tag("strong", name), f" over {axis} ", dashes),
        tag("div", data(content), class_="plot"),
        folded("in numbers", table(f"{name} over {axis}", header, rows, numbers=numbers)),
        class_="chart",
    )


def _drawn(value: float) -> float:
    """To more digits than a chart can show; a page holds many values."""
    return float(f"{value:.6g}")


def _curve_row(line: Line, axis: str) -> list[Child]:
    curve = line.curve
    return [
        " ".join(filter(None, (line.split, line.label))),
        f"{curve.values:,}",
        number(curve.first),
        number(curve.last),
        f"{number(curve.lowest[1])} at {axis} {number(curve.lowest[0])}",
        f"{number(curve.highest[1])} at {axis} {number(curve.highest[0])}",
    ]


def _remarks(declared: DeclaredCurves, labels: Sequence[str]) -> Iterator[str]:
    """What is not drawn as it is logged, each with the runs of which it is true."""
    found: dict[str, list[str]] = {}
    for each, label in zip(declared.logs, labels, strict=True):
        for remark in _remarks_of(each.log):
            found.setdefault(remark, []).append(label)
    for remark, those in found.items():
        every = len(those) == len(labels)
        yield f"{'each run' if every else ' and '.join(those)}: {remark}"


def _remarks_of(log: CurveLog) -> Iterator[str]:
    if not log.curves:
        yield f"no numbers in {count(log.lines, 'line')}"
    if log.damaged:
        yield f"{count(log.damaged, 'line')} of {log.lines:,} can't be read, and left out"
    if log.not_finite:
        yield f"{count(log.not_finite, 'value')} not finite (NaN or infinite), and not drawn"
    if log.left_out:
        yield f"{count(log.left_out, 'more column')}, not drawn"
    if thinned := [curve for curve in log.curves if curve.thinned]:
        longest = max(thinned, key=lambda curve: curve.values)
        yield (
            f"thinned from {longest.values:,} to {len(longest.points):,} points a curve: the lowest"
            " and the highest of neighbours are kept, so no peak is lost"
        )
