"""Where two trainings first went apart, from what was recorded of their steps.

The files are those of `runtime/v1/steps.py`: a line of JSON, then records of one size. They were
written inside a stage, so they may be cut, missing or anything else. They are read side by side in
constant memory; records that are equal byte for byte are not looked at one by one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:  # `benchmarks/gpu_checks.py` reads recordings where nothing is installed
    from modelbuild.store.realisations import Realisation
    from modelbuild.store.store import Store

STEP, BACKWARD, START, FIT = 1, 2, 3, 4
_FORM = struct.Struct("<BBHHHIIIIIIId")
_AT_ONCE = 4096
_LONGEST_HEAD = 4096


class Record(NamedTuple):
    """One record of a trace; a column that is not in `has` is 0."""

    kind: int
    has: int
    source: int
    """Which optimiser, by the order of their first steps."""
    calls: int
    """How often a model was given a batch."""
    backwards: int
    batch: int
    python: int
    numpy: int
    torch: int
    loss: int
    gradients: int
    parameters: int
    value: float
    """Of the loss."""


_COLUMNS = Record._fields
_IN = {"batch": 1, "loss": 2, "gradients": 4, "parameters": 8}
_GENERATORS = ("python", "numpy", "torch")
_ARITHMETIC = {
    "loss": "arithmetic of the forward pass",
    "gradients": "arithmetic of the backward pass",
    "parameters": "arithmetic of the optimiser",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class StepDifference:
    """The first step that differs."""

    step: int
    """From 1; 0: before the first."""
    steps: int
    """Of the first training."""
    column: str
    """`batch`, `random`, `loss`, `gradients` or `parameters`."""
    went_first: str
    """`data order`, `random numbers` or `arithmetic`."""
    process: str
    """Its place in the tree of the stage's processes; `0` is the first."""
    what: str
    """In words."""

    def __str__(self) -> str:
        where = f"{self.step:,} of {self.steps:,}" if self.step else "before the first one"
        process = "" if self.process == "0" else f" in process {self.process}"
        return f"first different step: {where}{process}: {self.what}"


@dataclass(frozen=True, kw_only=True, slots=True)
class StepComparison:
    """What two recordings say of each other."""

    difference: StepDifference | None
    says: str
    """A line for people; why there is no answer, where there is none."""


def traces_of(first: Realisation, second: Realisation, store: Store) -> StepComparison:
    """What the recordings of two builds say of each other."""
    folders = [store.root / each.trace if each.trace else None for each in (first, second)]
    return compare_steps(*folders)


def compare_steps(first: Path | None, second: Path | None) -> StepComparison:
    """The first difference of two trace folders; None where nothing was recorded."""
    names = [_recorded(folder) for folder in (first, second)]
    if first is None or second is None or not all(names):
        which = "either build" if not any(names) else f"the {'second' if names[0] else 'first'} one"
        return StepComparison(difference=None, says=f"no steps were recorded in {which}")
    if names[0] != names[1]:
        other = min(set(names[0]) ^ set(names[1]))
        only = "first" if other in names[0] else "second"
        says = f"steps of process {_place(other)} were recorded in the {only} build only"
    else:
        says = ""
    found, complaints, steps = [], [], 0
    for name in sorted(set(names[0]) & set(names[1])):
        try:
            with Trace(first / name) as one, Trace(second / name) as other_one:
                difference = _compare(one, other_one, _place(name))
                steps += one.steps
        except (OSError, ValueError) as error:
            complaints.append(f"the steps of process {_place(name)} can't be compared: {error}")
            continue
        if difference:
            found.append(difference)
    if found:
        earliest = min(found, key=lambda each: each.step)
        return StepComparison(difference=earliest, says=str(earliest))
    says = "; ".join(complaints) or says
    return StepComparison(difference=None, says=says or _all_identical(steps))


def _all_identical(steps: int) -> str:
    if not steps:
        return "no step was recorded in either build"
    return f"all {steps:,} steps are identical: the difference came after the last one"


def _recorded(folder: Path | None) -> list[str]:
    return sorted(path.name for path in folder.glob("steps-*.bin")) if folder else []


def _place(name: str) -> str:
    return name.removeprefix("steps-").removesuffix(".bin")


class Trace:
    """One file of records, read from its beginning. Raises ValueError for anything else."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        try:
            self._head()
            self._start = self._file.tell()
            self._count()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _head(self) -> None:
        line = self._file.readline(_LONGEST_HEAD)
        try:
            head = json.loads(line)
            known = head["modelbuild_trace"] == 1 and tuple(head["columns"]) == _COLUMNS
        except (ValueError, KeyError, TypeError, RecursionError):
            known = False
        if not known or not line.endswith(b"\n"):
            raise ValueError("this is no recording that this modelbuild can read")

    def _count(self) -> None:
        """How many records of each kind there are, and which kind counts as a step."""
        counts = dict.fromkeys((STEP, FIT, BACKWARD), 0)
        for chunk in self.chunks():
            kinds = chunk[:: _FORM.size]
            for kind in counts:
                counts[kind] += kinds.count(kind)
        self.unit = next((kind for kind, count in counts.items() if count), STEP)
        self.steps = counts[self.unit]

    def chunks(self) -> Iterator[bytes]:
        """Whole records, many at once; what a killed process left of one is not among them."""
        self._file.seek(self._start)
        while chunk := self._file.read(_AT_ONCE * _FORM.size):
            yield chunk[: len(chunk) // _FORM.size * _FORM.size]


def _compare(first: Trace, second: Trace, process: str) -> StepDifference | None:
    done = 0
    others = second.chunks()
    for chunk in first.chunks():
        other = next(others, b"")
        if chunk != other:
            index = _first_different(chunk, other)
            if index is not None:
                done += chunk[: index : _FORM.size].count(first.unit)
                return _difference(chunk[index:], other[index:], done, first, second, process)
        done += chunk[:: _FORM.size].count(first.unit)
    rest = next(others, b"")
    return _difference(b"", rest, done, first, second, process) if rest else None


def _first_different(chunk: bytes, other: bytes) -> int | None:
    """Where the first record begins that says something else, or is missing on one side."""
    size = _FORM.size
    for index in range(0, max(len(chunk), len(other)), size):
        one, two = chunk[index : index + size], other[index : index + size]
        if one != two and (not one or not two or _column(_record(one), _record(two))):
            return index
    return None


def _record(text: bytes) -> Record:
    return Record(*_FORM.unpack_from(text))


def _column(first: Record, second: Record) -> str | None:
    """The column that went first; None where all that both have is the same.

    A batch that was drawn with other random numbers differs because of them, a loss because of its
    batch, and so on.
    """
    for name in _GENERATORS:
        if getattr(first, name) != getattr(second, name):
            return name
    for name, bit in _IN.items():
        both = first.has & second.has & bit
        if both and getattr(first, name) != getattr(second, name):
            return name
    same = [first.kind, first.source, first.calls, first.backwards]
    return None if same == [second.kind, second.source, second.calls, second.backwards] else "order"


def _difference(
    first: bytes, second: bytes, done: int, one: Trace, two: Trace, process: str
) -> StepDifference:
    """From the first records that differ, after `done` steps."""
    if not first or not second:
        fewer, steps = ("first", one.steps) if not first else ("second", two.steps)
        what = f"the {fewer} one ends after {steps:,} steps (data order)"
        return _said(done + 1, one.steps, "batch", "data order", process, what)
    a, b = _record(first), _record(second)
    column = _column(a, b)
    starting = a.kind == b.kind == START
    step = 0 if starting and not done else done + 1
    if column in _GENERATORS:
        what = f"the random numbers of {column} (random numbers)"
        return _said(step, one.steps, "random", "random numbers", process, what)
    if column == "batch":
        return _said(step, one.steps, "batch", "data order", process, "the batch (data order)")
    if column == "order":
        what = "other batches, or another number of passes (data order)"
        return _said(step, one.steps, "batch", "data order", process, what)
    assert column is not None
    how = "arithmetic" if starting or a.kind == FIT else _ARITHMETIC[column]
    return _said(step, one.steps, column, "arithmetic", process, f"the {column} ({how})")


def _said(
    step: int, steps: int, column: str, went_first: str, process: str, what: str
) -> StepDifference:
    return StepDifference(
        step=step, steps=steps, column=column, went_first=went_first, process=process, what=what
    )
