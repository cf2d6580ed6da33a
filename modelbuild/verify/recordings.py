"""Recordings of one training step, operation by operation.

What `runtime/v1/operations.py` writes: a line of JSON each for the head, listings of folders,
readings of the clock, and operations in their order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelbuild.errors import InvalidInputError

BATCH = "DataLoader.__next__"
_SEQUENCES = ("inputs", "sources", "outputs")


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One operation of torch, or a batch from a `DataLoader`."""

    op: str
    line: str | None
    """`train.py:41`; of a backward operation, that of its forward."""
    phase: str
    """`forward`, `backward`, `optimizer` or `data`."""
    called: str | None = None
    """The line that was being run, where it is another."""
    inputs: tuple[int, ...] = ()
    sources: tuple[int, ...] = ()
    """Of each input, the number of the operation that last wrote to its memory, or -1."""
    constants: str = ""
    generator: int | None = None
    """State of the generator it draws from."""
    random: int | None = None
    """State of the generators of `random` and numpy, where it reads what no operation made."""
    outputs: tuple[int, ...] = ()
    gave: str = ""
    """What it gave besides tensors."""
    fresh: str | None = None
    """The line that allocated an input which nobody has filled."""

    @property
    def place(self) -> tuple[str, str | None, str]:
        return self.op, self.line, self.phase

    @property
    def read(self) -> tuple[object, ...]:
        return self.inputs, self.constants, self.generator

    @property
    def result(self) -> tuple[object, ...]:
        return self.outputs, self.gave


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A listing of a folder or a reading of the clock, before operation number `at`."""

    op: str
    line: str
    at: int
    path: str = ""
    order: int = 0
    names: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    step: int
    complete: bool
    """False where the training ended before the step did."""
    threads: int
    torch: str
    knob: str | None = None
    listings: tuple[Seen, ...] = ()
    clocks: tuple[Seen, ...] = ()
    operations: tuple[Operation, ...] = field(repr=False)


def read_recordings(path: Path) -> tuple[Recording, ...]:
    """All recordings of a file. Raises InvalidInputError where it holds something else."""
    try:
        with path.open(encoding="utf-8") as file:
            found = tuple(parse_recordings(file))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_a_recording(path, str(error)) from None
    if not found:
        raise _not_a_recording(path, "nothing")
    return found


def _not_a_recording(path: Path, found: str) -> InvalidInputError:
    return InvalidInputError(
        f"{path}: this is no recording of operations",
        facts=[("found", found)],
        hint="To make one: modelbuild verify --explain --save FILE",
    )


def parse_recordings(lines: Iterable[str]) -> Iterator[Recording]:
    """Each begins with the line of its head."""
    records: list[dict[str, Any]] = []
    for line in lines:
        record = json.loads(line)
        if "op" not in record and records:
            yield _recording(records)
            records = []
        records.append(record)
    if records:
        yield _recording(records)


def _recording(records: Sequence[dict[str, Any]]) -> Recording:
    head, *others = records
    listings, clocks, operations = [], [], []
    for record in others:
        if "at" not in record:
            sides = {name: tuple(record[name]) for name in _SEQUENCES if name in record}
            operations.append(Operation(**{**record, **sides}))
        elif record["op"].startswith("time."):
            clocks.append(Seen(**record))
        else:
            listings.append(Seen(**record))
    return Recording(
        **head, listings=tuple(listings), clocks=tuple(clocks), operations=tuple(operations)
    )
