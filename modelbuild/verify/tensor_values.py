"""Compares the values of two tensors in constant memory, without numpy.

Equal chunks are skipped by comparing bytes, and so are equal blocks of a chunk; only the blocks
that remain are decoded.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import ne
from typing import TypeAlias

from modelbuild.store.tensor_files import Kind, Tensor, UnreadableTensorsError
from modelbuild.store.tensor_files.numbers import NumberReader, number_reader
from modelbuild.verify.comparison import TensorDifference

BLOCK = 512
MEASURED = 1_000_000
"""Differing values of a tensor over which the largest differences are taken: about a second's."""

Blocks: TypeAlias = Iterator[tuple[int, bytes, bytes]]


def compare_values(first: Tensor, second: Tensor) -> TensorDifference | None:
    """None where all bits are the same. Type and shape are the same in both.

    Raises UnreadableTensorsError where a file is damaged, or the values can't be had in one order.
    """
    if first.stored_shape != second.stored_shape:
        raise UnreadableTensorsError("one of them repeats values that the other one stores")
    in_memory_order = first.strides == second.strides and first.dense
    reader = number_reader(first.dtype)
    largest = _Largest()
    differing = 0
    at = -1
    for position, one, two in _differing_blocks(first, second, in_memory_order):
        bits_one, bits_two = reader.bits(one), reader.bits(two)
        if at < 0:
            offset = next(
                i for i, (x, y) in enumerate(zip(bits_one, bits_two, strict=True)) if x != y
            )
            at = position // reader.width + offset
        found = sum(map(ne, bits_one, bits_two))
        differing += found
        if largest.measured < MEASURED and reader.numbers:
            largest.measure(reader, one, two, bits_one, bits_two)
    if not differing:
        return None
    parts = first.dtype.parts if first.dtype.kind is not Kind.RAW else 1
    return TensorDifference(
        differing=differing,
        values=first.stored * parts,
        first=first.index(at // parts, in_memory_order=in_memory_order),
        measured=largest.measured if reader.numbers else differing,
        largest_abs=largest.abs,
        largest_rel=largest.rel,
        largest_ulps=largest.ulps,
        not_finite=largest.not_finite,
    )


def _differing_blocks(first: Tensor, second: Tensor, in_memory_order: bool) -> Blocks:
    """Blocks that are not the same, and the byte at which they start."""
    itemsize = first.dtype.itemsize
    size = max(BLOCK // itemsize, 1) * itemsize
    position = 0
    chunks = zip(
        first.chunks(in_memory_order=in_memory_order),
        second.chunks(in_memory_order=in_memory_order),
        strict=True,
    )
    for one, two in chunks:
        if one != two:
            for start in range(0, len(one), size):
                block_one, block_two = one[start : start + size], two[start : start + size]
                if block_one != block_two:
                    yield position + start, block_one, block_two
        position += len(one)


@dataclass(kw_only=True, slots=True)
class _Largest:
    """The largest differences so far."""

    measured: int = 0
    abs: float | int | None = None
    rel: float | None = None
    ulps: int | None = None
    not_finite: int = 0

    def measure(
        self,
        reader: NumberReader,
        one: bytes,
        two: bytes,
        bits_one: Sequence[int] | Sequence[bytes],
        bits_two: Sequence[int] | Sequence[bytes],
    ) -> None:
        assert reader.numbers is not None
        pairs = zip(bits_one, bits_two, strict=True)
        at = [i for i, (x, y) in enumerate(pairs) if x != y][: MEASURED - self.measured]
        self.measured += len(at)
        numbers_one, numbers_two = reader.numbers(one), reader.numbers(two)
        if not reader.floating:
            largest = max(abs(numbers_one[i] - numbers_two[i]) for i in at)
            self.abs = max(self.abs or 0, largest)
            return
        half = 1 << (8 * reader.width - 1)
        for i in at:
            x, y = numbers_one[i], numbers_two[i]
            if math.isfinite(x) and math.isfinite(y):
                self._floats(x, y, abs(_rank(bits_one[i], half) - _rank(bits_two[i], half)))
            else:
                self.not_finite += 1

    def _floats(self, x: float, y: float, ulps: int) -> None:
        difference = min(abs(x - y), sys.float_info.max)
        magnitude = max(abs(x), abs(y))
        relative = abs(x / magnitude - y / magnitude) if magnitude else 0.0
        self.abs = max(self.abs or 0.0, difference)
        self.rel = max(self.rel or 0.0, relative)
        self.ulps = max(self.ulps or 0, ulps)


def _rank(bits: int | bytes, half: int) -> int:
    """The place of a float among all of its type, in order, from the bits as a signed integer.

    0.0 and -0.0 share a place.
    """
    assert isinstance(bits, int)
    return bits if bits >= 0 else -half - bits
