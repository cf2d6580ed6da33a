"""A tensor that lies in a file: what it is, and its bytes in pieces of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import prod
from pathlib import Path
from typing import Literal

from modelbuild.errors import ModelbuildError

CHUNK = 1 << 20
"""Bytes of a tensor that are in memory at once, at most."""
MAX_ITEM = 1 << 16
MAX_DIMENSIONS = 64
_UNITS: Mapping[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}
_READ = 1 << 16


class UnreadableTensorsError(ModelbuildError):
    """The file is not what its name or its first bytes say, or can't be read within bounds.

    The summary is the reason alone: whoever asked knows the file.
    """


class Kind(StrEnum):
    FLOAT = "float"
    INTEGER = "integer"
    RAW = "raw"
    """Bits that can be the same or not, and no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DType:
    """The type of a tensor's values."""

    name: str
    """As numpy and torch call it."""
    kind: Kind
    unit: int
    """Bytes of one number."""
    parts: int = 1
    """Numbers in a value: 2 for complex ones."""

    @property
    def itemsize(self) -> int:
        return self.unit * self.parts


def _dtypes() -> Iterator[DType]:
    for name, unit in (("float64", 8), ("float32", 4), ("float16", 2), ("bfloat16", 2)):
        yield DType(name=name, kind=Kind.FLOAT, unit=unit)
    for name in ("float8_e4m3fn", "float8_e5m2"):
        yield DType(name=name, kind=Kind.FLOAT, unit=1)
    for unit in (1, 2, 4, 8):
        yield DType(name=f"int{8 * unit}", kind=Kind.INTEGER, unit=unit)
        yield DType(name=f"uint{8 * unit}", kind=Kind.INTEGER, unit=unit)
    yield DType(name="bool", kind=Kind.INTEGER, unit=1)
    yield DType(name="complex64", kind=Kind.FLOAT, unit=4, parts=2)
    yield DType(name="complex128", kind=Kind.FLOAT, unit=8, parts=2)


DTYPES: Mapping[str, DType] = {dtype.name: dtype for dtype in _dtypes()}


def raw_dtype(name: str, unit: int, parts: int = 1) -> DType:
    """A type of which only the size is known."""
    if not 0 < unit * parts <= MAX_ITEM:
        raise UnreadableTensorsError(f"values of type {name!r} take {unit * parts:,} bytes each")
    return DType(name=name, kind=Kind.RAW, unit=unit, parts=parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """Bytes `start` to `start + length` of what lies at `offset` of a file."""

    path: Path
    offset: int
    length: int
    start: int = 0
    packed: int | None = None
    """Where the content is deflated: the bytes that it takes in the file."""

    def part(self, start: int, length: int) -> Region:
        """Raises UnreadableTensorsError where that is not inside."""
        if start < 0 or length < 0 or start + length > self.length:
            raise UnreadableTensorsError(
                f"bytes {start:,} to {start + length:,} are wanted of {self.length:,}"
            )
        return Region(
            path=self.path,
            offset=self.offset,
            length=length,
            start=self.start + start,
            packed=self.packed,
        )

    def chunks(self, size: int = CHUNK) -> Iterator[bytes]:
        """The bytes in pieces of `size`, the last one shorter.

        Raises UnreadableTensorsError where the file ends early or can't be unpacked.
        """
        pieces = self._stored() if self.packed is None else self._inflated()
        buffer = bytearray()
        for piece in pieces:
            buffer += piece
            while len(buffer) >= size:
                yield bytes(buffer[:size])
                del buffer[:size]
        if buffer:
            yield bytes(buffer)

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def _stored(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(self.offset + self.start)
            left = self.length
            while left:
                piece = file.read(min(left, CHUNK))
                if not piece:
                    raise UnreadableTensorsError("the file ends early")
                left -= len(piece)
                yield piece

    def _inflated(self) -> Iterator[bytes]:
        skip, left = self.start, self.length
        for piece in self._unpacked():
            wanted = piece[skip : skip + left]
            skip = max(0, skip - len(piece))
            left -= len(wanted)
            if wanted:
                yield wanted
            if not left:
                return
        raise UnreadableTensorsError("its packed content ends early")

    def _unpacked(self) -> Iterator[bytes]:
        import zlib

        assert self.packed is not None
        unpacker = zlib.decompressobj(-15)
        packed = Region(path=self.path, offset=self.offset, length=self.packed)
        for piece in packed.chunks(_READ):
            rest = piece
            while rest:
                try:
                    unpacked = unpacker.decompress(rest, CHUNK)
                except zlib.error as error:
                    raise UnreadableTensorsError("its packed content is damaged") from error
                yield unpacked
                rest = unpacker.unconsumed_tail
        yield unpacker.flush()


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """A tensor in a file. Nothing of its content is in memory."""

    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In values; 0 along a dimension that repeats one value."""
    region: Region
    """From its first value to its last."""
    big_endian: bool = False

    @property
    def count(self) -> int:
        return prod(self.shape)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape without repetitions."""
        return tuple(
            min(size, 1) if stride == 0 else size
            for size, stride in zip(self.shape, self.strides, strict=True)
        )

    @property
    def stored(self) -> int:
        """Values without repetitions."""
        return prod(self.stored_shape)

    @property
    def dense(self) -> bool:
        """Whether its region holds each of its values once, and nothing else."""
        expected = 1
        for stride, size in sorted(zip(self.strides, self.stored_shape, strict=True)):
            if size == 0:
                return True
            if size > 1 and stride != expected:
                return False
            expected *= size
        return True

    def __str__(self) -> str:
        return f"{self.dtype.name}[{','.join(map(str, self.shape))}]"

    def index(self, position: int, *, in_memory_order: bool) -> tuple[int, ...]:
        """Where the stored value `position` stands in the tensor."""
        strides = self.strides if in_memory_order else contiguous(self.stored_shape)
        index = [0] * len(strides)
        dimensions = range(len(strides))
        for dimension in sorted(
            dimensions, key=lambda d: (strides[d], self.shape[d]), reverse=True
        ):
            if strides[dimension] and self.stored_shape[dimension] > 1:
                index[dimension], position = divmod(position, strides[dimension])
        return tuple(index)

    def chunks(self, *, in_memory_order: bool) -> Iterator[bytes]:
        """Its stored values in little-endian bytes, always cut at the same places.

        Raises UnreadableTensorsError where they can't be had in that order in bounded memory.
        """
        if not self.stored:
            return
        size = CHUNK // self.dtype.itemsize * self.dtype.itemsize
        if in_memory_order or self.strides == contiguous(self.shape):
            pieces = self.region.chunks(size)
        else:
            pieces = _gathered(self, size)
        for piece in pieces:
            yield _swapped(piece, self.dtype.unit) if self.big_endian else piece


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a tensor whose last index runs fastest."""
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def tensor_at(
    region: Region,
    dtype: DType,
    shape: Sequence[int],
    strides: Sequence[int] | None = None,
    big_endian: bool = False,
) -> Tensor:
    """The tensor whose first value starts `region`, which may be longer than the tensor.

    Raises UnreadableTensorsError where it does not fit.
    """
    shape = tuple(shape)
    strides = contiguous(shape) if strides is None else tuple(strides)
    if len(shape) > MAX_DIMENSIONS or len(strides) != len(shape):
        raise UnreadableTensorsError(f"{len(shape)} dimensions with {len(strides)} strides")
    if any(size < 0 for size in shape) or any(stride < 0 for stride in strides):
        raise UnreadableTensorsError("a shape or a stride is negative")
    span = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    length = span * dtype.itemsize if prod(shape) else 0
    tensor = Tensor(
        dtype=dtype,
        shape=shape,
        strides=strides,
        region=region.part(0, length),
        big_endian=big_endian,
    )
    if tensor.stored > span:
        raise UnreadableTensorsError(f"a tensor of {tensor.stored:,} values has room for {span:,}")
    return tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorFile:
    """What a file of tensors holds."""

    kind: str
    """`safetensors`, `npy`, `npz` or `torch`."""
    tensors: Mapping[str, Tensor]
    """In the order of the file."""
    values: Mapping[str, str] = field(default_factory=dict)
    """What else it holds, as text, by dotted name: metadata, an epoch, options."""


def _swapped(data: bytes, unit: int) -> bytes:
    swapped = bytearray(len(data))
    for byte in range(unit):
        swapped[byte::unit] = data[unit - 1 - byte :: unit]
    return bytes(swapped)


def _gathered(tensor: Tensor, size: int) -> Iterator[bytes]:
    """The values in the order of the index, through a memory map, `size` bytes a piece."""
    import mmap

    region = tensor.region
    if region.packed is not None:
        raise UnreadableTensorsError("its values are packed, and in another order")
    first = region.offset + region.start
    with region.path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as map_:
        if first + region.length > len(map_):
            raise UnreadableTensorsError("the file ends early")
        with (
            memoryview(map_) as whole,
            whole[first : first + region.length] as part,
            part.cast(_UNITS.get(tensor.dtype.itemsize, "B")) as view,
        ):
            buffer = bytearray()
            for row in _rows(tensor, size):
                with view[row] as values:
                    buffer += values.tobytes()
                while len(buffer) >= size:
                    yield bytes(buffer[:size])
                    del buffer[:size]
            if buffer:
                yield bytes(buffer)


def _rows(tensor: Tensor, size: int) -> Iterator[slice]:
    """Slices of the units of a region, of at most `size` units, in the order of the index."""
    from itertools import product

    shape, strides = list(tensor.stored_shape), list(tensor.strides)
    if tensor.dtype.itemsize not in _UNITS:
        strides = [stride * tensor.dtype.itemsize for stride in strides]
        shape, strides = [*shape, tensor.dtype.itemsize], [*strides, 1]
    shape, strides = _merged(shape, strides)
    *outer, (last, step) = zip(shape, strides, strict=True)
    for index in product(*(range(count) for count, _ in outer)):
        start = sum(i * stride for i, (_, stride) in zip(index, outer, strict=True))
        for done in range(0, last, size):
            count = min(size, last - done)
            begin = start + done * step
            yield slice(begin, begin + (count - 1) * step + 1, step)


def _merged(shape: Sequence[int], strides: Sequence[int]) -> tuple[list[int], list[int]]:
    """The same values in the same order, in as few dimensions as possible: rows get long."""
    merged = [1]
    steps = [1]
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if merged[-1] > 1 and steps[-1] == size * stride:
            merged[-1], steps[-1] = merged[-1] * size, stride
        else:
            merged.append(size)
            steps.append(stride)
    return merged, steps
