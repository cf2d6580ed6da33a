"""Compares what two models say to the same inputs: arrays of two outputs, number by number."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TypeAlias

from modelbuild.spec.canonical import Json
from modelbuild.spec.recipe import Predictions, Tolerance
from modelbuild.store.tensor_files import Tensor, TensorFile, UnreadableTensorsError
from modelbuild.store.tensor_files import read_tensors as read_arrays
from modelbuild.store.tensor_files.numbers import number_reader
from modelbuild.store.tree import stays_inside

MOST_TEXT = 256 << 20
"""Bytes of a CSV or JSON file, which is read as a whole."""

Leaf: TypeAlias = "tuple[str, object]"
"""Where a value stands, and the value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionsComparison:
    """How the predictions of two outputs relate. Each number counts for itself."""

    file: str
    values: int = 0
    outside: int = 0
    """Values that lie further apart than the tolerance."""
    largest_abs: float = 0.0
    """The largest finite difference."""
    first_outside: str | None = None
    problem: str | None = None
    """Why the two can't be compared number by number: then they are different."""

    @property
    def within(self) -> bool:
        return self.problem is None and not self.outside

    def __str__(self) -> str:
        if self.problem:
            return f"predictions {self.file}: different: {self.problem}"
        apart = f"at most {self.largest_abs:.2g} apart"
        if self.within:
            return f"predictions {self.file}: all {self.values:,} within tolerance, {apart}"
        return (
            f"predictions {self.file}: {self.outside:,} of {self.values:,} outside the tolerance,"
            f" {apart}, first at {self.first_outside}"
        )

    def to_json(self) -> dict[str, Json]:
        return {
            "file": self.file,
            "within": self.within,
            "values": self.values,
            "outside": self.outside,
            "largest_abs": self.largest_abs,
            "first_outside": self.first_outside,
            "problem": self.problem,
        }


def compare_predictions(first: Path, second: Path, wanted: Predictions) -> PredictionsComparison:
    """Of two outputs. What can't be read, or is not of one shape, is different."""
    try:
        paths = [_inside(output, wanted.file) for output in (first, second)]
        tally = _Tally(wanted.tolerance)
        arrays = [read_arrays(path) for path in paths]
        if arrays[0] is not None and arrays[1] is not None:
            _compare_arrays(arrays[0], arrays[1], tally)
        else:
            _compare_leaves(_leaves(paths[0]), _leaves(paths[1]), tally)
    except UnreadableTensorsError as error:
        return PredictionsComparison(file=wanted.file, problem=error.summary)
    except (OSError, ValueError) as error:
        return PredictionsComparison(file=wanted.file, problem=str(error))
    return PredictionsComparison(
        file=wanted.file,
        values=tally.values,
        outside=tally.outside,
        largest_abs=tally.largest_abs,
        first_outside=tally.first_outside,
    )


def _inside(output: Path, file: str) -> Path:
    if not stays_inside(os.fsencode(output), os.fsencode(file)):
        raise ValueError(f"{file} leads out of the output")
    if not (output / file).is_file():
        raise ValueError(f"an output has no file {file}")
    return output / file


class _Tally:
    """Counts the numbers that lie too far apart.

    A NaN agrees with a NaN, an infinity with itself; a text, a truth value or null with its equal.
    """

    def __init__(self, tolerance: Tolerance) -> None:
        self.tolerance = tolerance
        self.values = 0
        self.outside = 0
        self.largest_abs = 0.0
        self.first_outside: str | None = None

    def take(self, place: str, first: object, second: object) -> None:
        self.values += 1
        if not self._agree(first, second):
            self.outside += 1
            self.first_outside = self.first_outside or place

    def _agree(self, first: object, second: object) -> bool:
        if not (_is_number(first) and _is_number(second)):
            return type(first) is type(second) and first == second
        assert isinstance(first, int | float)
        assert isinstance(second, int | float)
        if first == second or (first != first and second != second):
            return True
        if not (math.isfinite(first) and math.isfinite(second)):
            return False
        difference = abs(first - second)
        self.largest_abs = max(self.largest_abs, float(difference))
        return difference <= max(self.tolerance.abs, self.tolerance.rel * abs(first))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _compare_arrays(first: TensorFile, second: TensorFile, tally: _Tally) -> None:
    if list(first.tensors) != list(second.tensors):
        raise ValueError("not the same arrays")
    if not first.tensors:
        raise ValueError("no arrays")
    for name, one in first.tensors.items():
        _compare_tensors(name, one, second.tensors[name], tally)


def _compare_tensors(name: str, first: Tensor, second: Tensor, tally: _Tally) -> None:
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        raise ValueError(f"{name} is {first} in the first, {second} in the second")
    in_memory_order = first.strides == second.strides and first.dense
    numbers = number_reader(first.dtype).numbers
    position = 0
    for one, two in zip(
        first.chunks(in_memory_order=in_memory_order),
        second.chunks(in_memory_order=in_memory_order),
        strict=True,
    ):
        if one == two or numbers is None:
            tally.values += len(one) // first.dtype.unit
            if one != two:
                raise ValueError(f"{name} of {first} has no numbers to compare")
        else:
            for offset, (x, y) in enumerate(zip(numbers(one), numbers(two), strict=True)):
                if x == y:
                    tally.values += 1
                    continue
                at = (position + offset) // first.dtype.parts
                index = first.index(at, in_memory_order=in_memory_order)
                tally.take(f"{name}[{','.join(map(str, index))}]", x, y)
        position += len(one) // first.dtype.unit


def _compare_leaves(first: Iterator[Leaf], second: Iterator[Leaf], tally: _Tally) -> None:
    for one, two in zip_longest(first, second):
        if one is None or two is None or one[0] != two[0]:
            place = (one or two)[0]
            raise ValueError(f"not of one structure, from {place or 'the start'}")
        tally.take(one[0], one[1], two[1])
    if not tally.values:
        raise ValueError("no values")


def _leaves(path: Path) -> Iterator[Leaf]:
    """The values of a file that is JSON, else of one that is CSV, in the order of the file."""
    if path.stat().st_size > MOST_TEXT:
        raise ValueError(f"{path.name} has more than {MOST_TEXT >> 20} MiB: keep arrays as npy")
    if path.suffix == ".json":
        return _json_leaves("", json.loads(path.read_bytes()))
    if path.suffix in (".csv", ".tsv"):
        return _csv_leaves(path)
    raise ValueError(f"{path.name} is neither a file of arrays nor .json, .csv or .tsv")


def _json_leaves(place: str, value: object) -> Iterator[Leaf]:
    if isinstance(value, dict):
        for key in sorted(value):
            yield from _json_leaves(f"{place}.{key}" if place else key, value[key])
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _json_leaves(f"{place}[{index}]", item)
    else:
        yield place, value


def _csv_leaves(path: Path) -> Iterator[Leaf]:
    with path.open(newline="", encoding="utf-8") as file:
        rows: Iterator[Sequence[str]] = csv.reader(
            file, delimiter="\t" if path.suffix == ".tsv" else ","
        )
        for number, row in enumerate(rows, start=1):
            for column, cell in enumerate(row, start=1):
                yield f"row {number}, column {column}", _cell(cell)


def _cell(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text
