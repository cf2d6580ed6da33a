"""The bytes of a tensor as numbers, without numpy."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from modelbuild.store.tensor_files.tensor import DType, Kind

Values: TypeAlias = Sequence[float] | Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberReader:
    """How the bytes of one type are read."""

    width: int
    """Bytes of what `bits` gives one of."""
    bits: Callable[[bytes], Sequence[int] | Sequence[bytes]]
    numbers: Callable[[bytes], Values] | None
    """None where the type is only known as bits."""
    floating: bool


_SIGNED = {1: "b", 2: "h", 4: "i", 8: "q"}
_FLOATS = {"float64": "d", "float32": "f", "float16": "e", "complex64": "f", "complex128": "d"}


def number_reader(dtype: DType) -> NumberReader:
    if dtype.kind is Kind.RAW:
        return NumberReader(
            width=dtype.itemsize, bits=_items(dtype.itemsize), numbers=None, floating=False
        )
    code = _SIGNED[dtype.unit]
    if dtype.kind is Kind.INTEGER:
        read = _unpack(code.upper() if dtype.name.startswith(("uint", "bool")) else code)
        return NumberReader(width=dtype.unit, bits=read, numbers=read, floating=False)
    numbers = _SMALL_FLOATS.get(dtype.name) or _unpack(_FLOATS[dtype.name])
    return NumberReader(width=dtype.unit, bits=_unpack(code), numbers=numbers, floating=True)


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
