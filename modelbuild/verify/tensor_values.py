"""Compares the values of two tensors in constant memory, without numpy.

Equal chunks are skipped by comparing bytes, and so are equal blocks of a chunk; only the blocks
that remain are decoded.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import ne
from typing import TypeAlias

from modelbuild.store.tensor_files import DType, Kind, Tensor, UnreadableTensorsError
from modelbuild.verify.comparison import TensorDifference

BLOCK = 512
MEASURED = 1_000_000
"""Differing values of a tensor over which the largest differences are taken: about a second's."""

Values: TypeAlias = Sequence[float] | Sequence[int]
Blocks: TypeAlias = Iterator[tuple[int, bytes, bytes]]


def compare_values(first: Tensor, second: Tensor) -> TensorDifference | None:
    """None where all bits are the same. Type and shape are the same in both.

    Raises UnreadableTensorsError where a file is damaged, or the values can't be had in one order.
    """
    if first.stored_shape != second.stored_shape:
        raise UnreadableTensorsError("one of them repeats values that the other one stores")
    in_memory_order = first.strides == second.strides and first.dense
    reader = _reader(first.dtype)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reader:
    """How the bytes of one type are read."""

    width: int
    """Bytes of what `bits` gives one of."""
    bits: Callable[[bytes], Sequence[int] | Sequence[bytes]]
    numbers: Callable[[bytes], Values] | None
    """None where the type is only known as bits."""
    floating: bool


_SIGNED = {1: "b", 2: "h", 4: "i", 8: "q"}
_FLOATS = {"float64": "d", "float32": "f", "float16": "e", "complex64": "f", "complex128": "d"}


def _reader(dtype: DType) -> _Reader:
    if dtype.kind is Kind.RAW:
        return _Reader(
            width=dtype.itemsize, bits=_items(dtype.itemsize), numbers=None, floating=False
        )
    code = _SIGNED[dtype.unit]
    if dtype.kind is Kind.INTEGER:
        read = _unpack(code.upper() if dtype.name.startswith(("uint", "bool")) else code)
        return _Reader(width=dtype.unit, bits=read, numbers=read, floating=False)
    numbers = _SMALL_FLOATS.get(dtype.name) or _unpack(_FLOATS[dtype.name])
    return _Reader(width=dtype.unit, bits=_unpack(code), numbers=numbers, floating=True)


def _unpack(code: str) -> Callable[[bytes], tuple[int, ...]]:
    size = struct.calcsize(f"<{code}")
    return lambda data: struct.unpack(f"<{len(data) // size}{code}", data)


def _items(size: int) -> Callable[[bytes], list[bytes]]:
    return lambda data: [data[start : start + size] for start in range(0, len(data), size)]


def _bfloat16(data: bytes) -> Sequence[float]:
    """The upper half of a float32."""
    wide = bytearray(2 * len(data))
    wide[2::4], wide[3::4] = data[::2], data[1::2]
    return struct.unpack(f"<{len(data) // 2}f", wide)


def _table(mantissa_bits: int, bias: int, not_finite: Callable[[int], bool]) -> tuple[float, ...]:
    """The values of the 256 patterns of an 8-bit float."""

    def value(pattern: int) -> float:
        exponent, mantissa = divmod(pattern & 0x7F, 1 << mantissa_bits)
        if not_finite(pattern & 0x7F):
            return math.nan
        fraction = mantissa / (1 << mantissa_bits) + (exponent > 0)
        return math.copysign(math.ldexp(fraction, max(exponent, 1) - bias), 128 - pattern - 0.5)

    return tuple(map(value, range(256)))


# Micikevicius et al., "FP8 Formats for Deep Learning", 2022, table 1.
_E4M3FN = _table(3, 7, lambda magnitude: magnitude == 0x7F)
_E5M2 = _table(2, 15, lambda magnitude: magnitude >= 0x7C)
_SMALL_FLOATS: Mapping[str, Callable[[bytes], Values]] = {
    "bfloat16": _bfloat16,
    "float8_e4m3fn": lambda data: [_E4M3FN[byte] for byte in data],
    "float8_e5m2": lambda data: [_E5M2[byte] for byte in data],
}


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
        reader: _Reader,
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
