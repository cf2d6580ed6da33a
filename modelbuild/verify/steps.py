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

STEP, BACKWARD, START, FIT, ROUND = 1, 2, 3, 4, 5
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
_COUNTED = {STEP: "step", ROUND: "round", FIT: "fit", BACKWARD: "step"}
"""What a training is counted in: the first of these that it has."""
_ARITHMETIC = {
    "loss": "arithmetic of the forward pass",
    "gradients": "backward pass, or what changes them before the step",
    "parameters": "arithmetic of the optimiser",
}
_OF_A_ROUND = {
    "torch": ("random", "random numbers", "the seeds of the booster"),
    "batch": ("batch", "data order", "the data or its labels"),
    "gradients": ("settings", "settings", "the settings of the booster"),
    "parameters": ("trees", "arithmetic", "the trees"),
}
"""What the columns of a round hold: their own names, what went first with them, and in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepDifference:
    """The first step that differs: an optimiser's step, a round of boosting, or a fit."""

    unit: str
    """`step`, `round` or `fit`."""

    step: int
    """From 1; 0: before the first."""
    steps: int
    """Of the first training."""
    column: str
    """`batch`, `random`, `loss`, `gradients` or `parameters`; of a round of boosting `batch`,
    `random`, `settings` or `trees`."""
    went_first: str
    """`data order`, `random numbers`, `settings` or `arithmetic`."""
    process: str
    """Its place in the tree of the stage's processes; `0` is the first."""
    what: str
    """In words."""

    def __str__(self) -> str:
        where = f"{self.step:,} of {self.steps:,}" if self.step else "before the first one"
        process = "" if self.process == "0" else f" in process {self.process}"
        return f"first different {self.unit}: {where}{process}: {self.what}"


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
    found, complaints = [], []
    counts: dict[str, int] = {}
    for name in sorted(set(names[0]) & set(names[1])):
        try:
            with Trace(first / name) as one, Trace(second / name) as other_one:
                difference = _compare(one, other_one, _place(name))
                unit = _COUNTED[one.unit]
                counts[unit] = counts.get(unit, 0) + one.counts[one.unit]
        except (OSError, ValueError) as error:
            complaints.append(f"the steps of process {_place(name)} can't be compared: {error}")
            continue
        if difference:
            found.append(difference)
    if found:
        earliest = min(found, key=lambda each: each.step)
        return StepComparison(difference=earliest, says=str(earliest))
    says = "; ".join(complaints) or says
    return StepComparison(difference=None, says=says or _all_identical(counts))


def counted(folder: Path) -> dict[str, int]:
    """How many steps, rounds and fits were recorded in a folder: of each the most of a process."""
    counts: dict[str, int] = {}
    for name in _recorded(folder):
        try:
            with Trace(folder / name) as trace:
                unit, count = _COUNTED[trace.unit], trace.counts[trace.unit]
        except (OSError, ValueError):
            continue
        counts[unit] = max(count, counts.get(unit, 0))
    return counts


def _all_identical(counts: dict[str, int]) -> str:
    shown = " and ".join(f"{count:,} {unit}s" for unit, count in counts.items() if count)
    if not shown:
        return "no step was recorded in either build"
    return f"all {shown} are identical: the difference came after the last one"


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
        self.counts = dict.fromkeys(_COUNTED, 0)
        for chunk in self.chunks():
            _add(self.counts, chunk)
        self.unit = next((kind for kind, count in self.counts.items() if count), STEP)

    def counted_in(self, kind: int) -> int:
        """Which records say where one of this kind is."""
        if kind in (ROUND, FIT):
            return kind
        return STEP if self.counts[STEP] else BACKWARD

    def chunks(self) -> Iterator[bytes]:
        """Whole records, many at once; what a killed process left of one is not among them."""
        self._file.seek(self._start)
        while chunk := self._file.read(_AT_ONCE * _FORM.size):
            yield chunk[: len(chunk) // _FORM.size * _FORM.size]


def _add(counts: dict[int, int], chunk: bytes) -> None:
    kinds = chunk[:: _FORM.size]
    for kind in counts:
        counts[kind] += kinds.count(kind)


def _compare(first: Trace, second: Trace, process: str) -> StepDifference | None:
    done = dict.fromkeys(_COUNTED, 0)
    others = second.chunks()
    for chunk in first.chunks():
        other = next(others, b"")
        if chunk != other:
            index = _first_different(chunk, other)
            if index is not None:
                _add(done, chunk[:index])
                return _difference(chunk[index:], other[index:], done, first, second, process)
        _add(done, chunk)
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
    first: bytes, second: bytes, done: dict[int, int], one: Trace, two: Trace, process: str
) -> StepDifference:
    """From the first records that differ, after `done` ones of each kind."""
    mine, theirs = (_record(text) if text else None for text in (first, second))
    kind = _record(first or second).kind
    unit = one.counted_in(kind)
    step = done[unit] + 1
    if mine is None or theirs is None:
        fewer, steps = ("first", one) if mine is None else ("second", two)
        what = f"the {fewer} one ends after {steps.counts[unit]:,} {_COUNTED[unit]}s"
        column, went_first = "batch", "data order"
    else:
        if mine.kind == theirs.kind == START and not done[unit]:
            step = 0
        column, went_first, what = _says(mine, theirs)
    how = _ARITHMETIC.get(column, went_first) if kind in (STEP, BACKWARD) else went_first
    return StepDifference(
        step=step,
        steps=one.counts[unit],
        unit=_COUNTED[unit],
        column=column,
        went_first=went_first,
        process=process,
        what=f"{what} ({how})",
    )


def _says(mine: Record, theirs: Record) -> tuple[str, str, str]:
    """The column that went first, what went first with it, and the same in words."""
    column = _column(mine, theirs)
    assert column is not None
    if column == "order":
        return "batch", "data order", "other batches, or another number of passes"
    if mine.kind == theirs.kind == ROUND and column in _OF_A_ROUND:
        return _OF_A_ROUND[column]
    if column in _GENERATORS:
        return "random", "random numbers", f"the random numbers of {column}"
    return column, "data order" if column == "batch" else "arithmetic", f"the {column}"
