"""Where two recordings of one training step first went apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest

from modelbuild.spec.canonical import Json
from modelbuild.verify.recordings import BATCH, Operation, Recording

BETWEEN = "between backward and step"
INSERTED_AT_MOST = 500
"""Operations that one side may have more, for the sides to be held against each other again."""


class Kind(StrEnum):
    RESULT = "result"
    """Equal inputs, unequal outputs."""
    INPUT = "input"
    """What it reads differs, and no operation before it made that."""
    SEQUENCE = "sequence"
    """The two ran other operations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstOperation:
    """Where two recordings first went apart."""

    step: int
    kind: Kind
    operation: str
    line: str | None
    phase: str
    what: str
    """What differs: `result`, `batch`, `listing`, `random numbers`, `uninitialised memory`,
    `constant`, `from outside`, `operations`."""
    detail: str = ""
    clock: str | None = None
    """The last reading of the clock before it."""

    def __str__(self) -> str:
        phase = f" ({self.phase})" if self.phase not in ("data", "outside") else ""
        text = f"step {self.step}, operation {self.operation}{phase}, {self.line or 'no line'}"
        return f"{text}: {self.detail}" if self.detail else text

    def to_json(self) -> dict[str, Json]:
        return {
            "step": self.step,
            "kind": str(self.kind),
            "operation": self.operation,
            "line": self.line,
            "phase": self.phase,
            "what": self.what,
            "detail": self.detail,
            "clock": self.clock,
        }


def first_difference(one: Recording, other: Recording) -> FirstOperation | None:
    """The first operation with equal inputs and unequal outputs, or where else it began.

    1. What an operation gave that differs is followed through memory, what came from outside by
       its two digests. 2. What changes no result is harmless: memory that is about to be
       overwritten, an operation's work space. So an operation some of whose outputs are equal, or a
       batch, is found guilty only when another one reads what differs and gives something else.
    3. Other operations from somewhere on are a difference of their own.
    """
    entered: dict[tuple[int, int], int] = {}
    gave: set[int] = set()
    for index, (mine, theirs) in enumerate(zip_longest(one.operations, other.operations)):
        if mine is None or theirs is None or mine.place != theirs.place:
            return _other_operations(index, one, other)
        origins = set()
        for place, pair in _unequal(mine.inputs, theirs.inputs):
            known = mine.sources[place] in gave
            origins.add(mine.sources[place] if known else entered.setdefault(pair, index))
        if mine.result == theirs.result:
            continue
        unequal = _unequal(mine.outputs, theirs.outputs)
        if origins or mine.read != theirs.read or not _partly(mine, unequal):
            return _judge(min(origins, default=index), one, other)
        gave.add(index)
    suspects = gave.union(entered.values())
    return _judge(min(suspects), one, other) if suspects else None


def _unequal(mine: Sequence[int], theirs: Sequence[int]) -> list[tuple[int, tuple[int, int]]]:
    """Places and pairs."""
    pairs = enumerate(zip(mine, theirs, strict=False))
    return [(place, pair) for place, pair in pairs if pair[0] != pair[1]]


def _partly(operation: Operation, unequal: Sequence[object]) -> bool:
    """Whether the unequal outputs may be such as nobody reads."""
    return bool(unequal) and (operation.op == BATCH or len(unequal) < len(operation.outputs))


def _judge(index: int, one: Recording, other: Recording) -> FirstOperation:
    mine, theirs = one.operations[index], other.operations[index]
    if mine.op == BATCH or mine.read != theirs.read:
        return _entered(index, one, other)
    return _describe(Kind.RESULT, index, one, what="result")


def _describe(
    kind: Kind, index: int, recording: Recording, *, what: str, detail: str = ""
) -> FirstOperation:
    operation = recording.operations[index]
    before = [clock for clock in recording.clocks if clock.at <= index]
    return FirstOperation(
        step=recording.step,
        kind=kind,
        operation=operation.op,
        line=operation.line,
        phase=_phase(index, recording),
        what=what,
        detail=detail,
        clock=f"{before[-1].op} at {before[-1].line}" if before else None,
    )


def _phase(index: int, recording: Recording) -> str:
    """Its phase; the script's own operations after a backward pass are not the forward's.

    They come before the optimiser's step, and no backward pass in between: gradients are clipped
    or scaled there, and metrics taken.
    """
    operations = recording.operations
    phase = operations[index].phase
    if phase != "forward":
        return phase
    passes = ("backward", "optimizer")
    before = next((each.phase for each in operations[:index][::-1] if each.phase in passes), None)
    after = next((each.phase for each in operations[index:] if each.phase in passes), None)
    return BETWEEN if (before, after) == passes else phase


def _entered(index: int, one: Recording, other: Recording) -> FirstOperation:
    """The difference came from outside of torch's operations, at number `index` at the latest."""
    mine, theirs = one.operations[index], other.operations[index]
    if listing := _other_listing(index, one, other):
        return listing
    if mine.generator != theirs.generator:
        detail = "it draws from a generator in another state"
        return _describe(Kind.INPUT, index, one, what="random numbers", detail=detail)
    if mine.phase == "data":
        index = _enclosing_batch(index, one)
        what = "random numbers" if _random_differs(index, one, other) else "batch"
        detail = "the batch differs"
        if what == "random numbers":
            detail += ", and so does the state of `random` or numpy"
        return _describe(Kind.INPUT, index, one, what=what, detail=detail)
    if mine.fresh and mine.inputs != theirs.inputs:
        detail = f"it reads memory that nothing has filled, allocated at {mine.fresh}"
        return _describe(Kind.INPUT, index, one, what="uninitialised memory", detail=detail)
    if mine.constants != theirs.constants:
        detail = f"a constant differs: ({mine.constants}) and ({theirs.constants})"
        return _describe(Kind.INPUT, index, one, what="constant", detail=detail)
    detail = "it reads what no operation of torch made, and that differs"
    what = "random numbers" if mine.random != theirs.random else "from outside"
    if what == "random numbers":
        detail += ", and so does the state of `random` or numpy"
    return _describe(Kind.INPUT, index, one, what=what, detail=detail)


def _random_differs(index: int, one: Recording, other: Recording) -> bool:
    return one.operations[index].random != other.operations[index].random


def _enclosing_batch(index: int, recording: Recording) -> int:
    """The batch that was being made, else the operation itself."""
    for number in range(index, len(recording.operations)):
        operation = recording.operations[number]
        if operation.op == BATCH:
            return number
        if operation.phase != "data":
            break
    return index


def _other_listing(index: int, one: Recording, other: Recording) -> FirstOperation | None:
    """The first listing before number `index` that differs."""
    pairs = zip(one.listings, other.listings, strict=False)
    for mine, theirs in pairs:
        if mine.at > index or (mine.line, mine.path) != (theirs.line, theirs.path):
            return None
        if mine.order != theirs.order:
            kind = "order" if mine.names == theirs.names else "content"
            return FirstOperation(
                step=one.step,
                kind=Kind.INPUT,
                operation=mine.op,
                line=mine.line,
                phase="outside",
                what="listing",
                detail=f"the {kind} of the listing of {mine.path} differs",
            )
    return None


def _other_operations(index: int, one: Recording, other: Recording) -> FirstOperation:
    """From number `index` on the two ran other operations: report those that one ran more."""
    mine, theirs = one.operations[index:], other.operations[index:]
    recording = one if not theirs or (mine and not _goes_on(mine[0], theirs)) else other
    shown = [
        f"{operations[0].op} at {operations[0].line}" if operations else "nothing"
        for operations in (mine, theirs)
    ]
    detail = f"one ran {shown[0]}, the other {shown[1]}"
    return _describe(Kind.SEQUENCE, index, recording, what="operations", detail=detail)


def _goes_on(operation: Operation, others: Sequence[Operation]) -> bool:
    """Whether the others come to the same operation after what they ran more."""
    return any(operation.place == each.place for each in others[:INSERTED_AT_MOST])
