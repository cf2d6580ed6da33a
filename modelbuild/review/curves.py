"""Curves from a log of a training: JSON Lines or CSV, read once, thinned without hiding peaks."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from modelbuild.review.thinning import Point, Thinner

AXES = ("step", "global_step", "iteration", "epoch")
"""What curves are drawn over: the first of these that the log has."""
LINE = "line"
MOST_CURVES = 32
_HEAD = 200
"""Records that tell what the axis is."""
_LONGEST = 1_000_000
"""Bytes of a line; a longer one is damaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    name: str
    points: tuple[Point, ...]
    """In the order of the log; of a long one two for each bucket, its lowest and its highest."""
    values: int
    """How many the log has."""
    first: float
    last: float
    lowest: Point
    highest: Point

    @property
    def thinned(self) -> bool:
        return len(self.points) < self.values


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveLog:
    """What one file holds, and what of it could not be read."""

    axis: str
    curves: tuple[Curve, ...]
    lines: int
    """Records, without the header of a CSV and without empty lines."""
    damaged: int = 0
    """Lines that are no record, or have no place on the axis."""
    not_finite: int = 0
    """Values that are NaN or infinite: no curve shows them."""
    left_out: int = 0
    """Columns beyond the first MOST_CURVES."""


Record = Mapping[str, float]


@dataclass(kw_only=True, slots=True)
class _Reading:
    """A log while it is read."""

    axis: str
    thinners: dict[str, Thinner] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    lines: int = 0
    damaged: int = 0
    not_finite: int = 0

    def add(self, record: Record | None) -> None:
        self.lines += 1
        place = self.lines if self.axis == LINE else (record or {}).get(self.axis, math.nan)
        if record is None or not math.isfinite(place):
            self.damaged += 1
            return
        for name, value in record.items():
            if name == self.axis:
                continue
            if not math.isfinite(value):
                self.not_finite += 1
            elif name in self.thinners:
                self.thinners[name].add(place, value)
            elif len(self.thinners) < MOST_CURVES:
                self.thinners[name] = Thinner(place, value)
            else:
                self.left_out.add(name)


def read_curves(file: Path) -> CurveLog:
    """Of a log in an output. Raises OSError where it is not there."""
    with file.open("rb") as stream:
        return parse_curves(stream, is_csv=file.suffix.lower() == ".csv")


def parse_curves(lines: Iterable[bytes], *, is_csv: bool) -> CurveLog:
    """Memory does not grow with the number of lines."""
    records, columns = _csv(lines) if is_csv else (_jsonl(lines), ())
    head = list(islice(records, _HEAD))
    reading = _Reading(axis=_axis([*columns, *(name for each in head for name in each or ())]))
    if columns and reading.axis == LINE:
        reading.axis = columns[0]
    for record in chain(head, records):
        reading.add(record)
    return CurveLog(
        axis=reading.axis,
        curves=tuple(_curve(name, each) for name, each in reading.thinners.items()),
        lines=reading.lines,
        damaged=reading.damaged,
        not_finite=reading.not_finite,
        left_out=len(reading.left_out),
    )


def _axis(names: Sequence[str]) -> str:
    return next((name for name in AXES if name in names), LINE)


def _curve(name: str, thinner: Thinner) -> Curve:
    return Curve(
        name=name,
        points=thinner.points(),
        values=thinner.values,
        first=thinner.first[1],
        last=thinner.last[1],
        lowest=thinner.lowest,
        highest=thinner.highest,
    )


def _texts(lines: Iterable[bytes]) -> Iterator[str | None]:
    """Lines with something in them; None for what is too long or no UTF-8."""
    for line in lines:
        if len(line) > _LONGEST:
            yield None
            continue
        try:
            text = line.decode().strip("\r\n\ufeff")
        except UnicodeDecodeError:
            yield None
            continue
        if text.strip():
            yield text


def _jsonl(lines: Iterable[bytes]) -> Iterator[Record | None]:
    for text in _texts(lines):
        try:
            content = json.loads(text) if text else None
            yield dict(_numbers(content, "")) if isinstance(content, dict) else None
        except (ValueError, RecursionError):
            yield None


def _numbers(content: Mapping[str, object], prefix: str) -> Iterator[tuple[str, float]]:
    """Nested objects give dotted names; texts, truth values, nulls and lists are no curves."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", _float(value)


def _float(value: float | str) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _csv(lines: Iterable[bytes]) -> tuple[Iterator[Record | None], tuple[str, ...]]:
    texts = _texts(lines)
    header = tuple(cell.strip() for cell in next(csv.reader([next(texts, "") or ""]), []))
    return (_row(text, header) for text in texts), header


def _row(text: str | None, header: tuple[str, ...]) -> Record | None:
    try:
        cells = next(csv.reader([text or ""], strict=True), [])
    except csv.Error:
        return None
    if len(cells) != len(header):
        return None
    return {name: value for name, cell in zip(header, cells, strict=True) for value in _cell(cell)}


def _cell(cell: str) -> Iterator[float]:
    """Nothing for an empty cell, and for words."""
    try:
        yield float(cell)
    except ValueError:
        return
