"""Reads the header of a safetensors file, and nothing else of it.

Format: 8 bytes with the header's length, a JSON object, then the tensors' bytes without holes.
https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path

from modelbuild.store.tensor_files.tensor import (
    DTYPES,
    DType,
    Region,
    Tensor,
    TensorFile,
    UnreadableTensorsError,
    raw_dtype,
    tensor_at,
)

MAX_HEADER = 16 << 20
"""Bytes; about 100,000 tensors."""
MAX_SIZE = 1 << 62

_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}


def read_safetensors(path: Path) -> TensorFile:
    """Raises UnreadableTensorsError."""
    size = path.stat().st_size
    header, data_start = _header(path, size)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise UnreadableTensorsError("'__metadata__' is not an object")
    data = Region(path=path, offset=data_start, length=size - data_start)
    return TensorFile(
        kind="safetensors",
        tensors=dict(_tensors(header, data)),
        values={f"__metadata__.{key}": str(value) for key, value in metadata.items()},
    )


def _header(path: Path, size: int) -> tuple[dict[str, object], int]:
    if size < 8:
        raise UnreadableTensorsError(f"it has {size} bytes, and a header takes 8 at least")
    length = int.from_bytes(Region(path=path, offset=0, length=8).read(), "little")
    if length > size - 8:
        raise UnreadableTensorsError(f"a header of {length:,} bytes in a file of {size:,}")
    if length > MAX_HEADER:
        raise UnreadableTensorsError(
            f"a header of {length:,} bytes; at most {MAX_HEADER:,} are read"
        )
    text = Region(path=path, offset=8, length=length).read()
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UnreadableTensorsError("the header is not JSON") from error
    if not isinstance(header, dict):
        raise UnreadableTensorsError("the header is not a JSON object")
    return header, 8 + length


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnreadableTensorsError("the header has a key twice")
    return found


def _tensors(header: Mapping[str, object], data: Region) -> Iterator[tuple[str, Tensor]]:
    """In the order of the data. As the format demands, without holes and overlaps."""
    entries = [(_offsets(name, entry), name, entry) for name, entry in header.items()]
    expected = 0
    for (begin, end), name, entry in sorted(entries, key=lambda item: item[:2]):
        if begin != expected:
            raise UnreadableTensorsError(
                f"tensor {name!r} starts at {begin:,}, but the one before ends at {expected:,}"
            )
        yield name, _tensor(name, entry, data.part(begin, end - begin))
        expected = end
    if expected != data.length:
        raise UnreadableTensorsError(f"{data.length - expected:,} bytes belong to no tensor")


def _offsets(name: str, entry: object) -> tuple[int, int]:
    offsets = _integers(entry.get("data_offsets")) if isinstance(entry, dict) else None
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise UnreadableTensorsError(f"tensor {name!r} has no valid 'data_offsets'")
    return offsets[0], offsets[1]


def _tensor(name: str, entry: object, region: Region) -> Tensor:
    assert isinstance(entry, dict)
    shape = _integers(entry.get("shape"))
    dtype_name = entry.get("dtype")
    if shape is None or not isinstance(dtype_name, str):
        raise UnreadableTensorsError(f"tensor {name!r} has no valid 'shape' and 'dtype'")
    if dtype_name not in _NAMES:
        # Types of the future, and those that pack values into less than a byte.
        return tensor_at(region, _bytes_of(dtype_name), (region.length,))
    dtype = DTYPES[_NAMES[dtype_name]]
    if prod(shape) * dtype.itemsize != region.length:
        raise UnreadableTensorsError(f"tensor {name!r} of shape {shape} in {region.length:,} bytes")
    return tensor_at(region, dtype, shape)


def _bytes_of(dtype_name: str) -> DType:
    return raw_dtype(f"{dtype_name} bytes", 1)


def _integers(value: object) -> list[int] | None:
    if isinstance(value, list) and all(
        type(item) is int and 0 <= item < MAX_SIZE for item in value
    ):
        return value
    return None
