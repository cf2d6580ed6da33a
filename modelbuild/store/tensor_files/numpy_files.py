"""Reads the headers of .npy files and of the members of .npz archives.

Format: numpy/lib/_format_impl.py. The header is a Python literal; it is matched, not evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from pathlib import Path

from modelbuild.store.tensor_files.tensor import (
    DTYPES,
    DType,
    Region,
    Tensor,
    TensorFile,
    UnreadableTensorsError,
    contiguous,
    raw_dtype,
    tensor_at,
)

MAGIC = b"\x93NUMPY"
MAX_HEADER = 10_000
"""Bytes, as in numpy itself."""
LONGEST_START = MAX_HEADER + 12
"""Bytes of a file's start that hold its header, or one that is too long."""
_FIXED = len(MAGIC) + 2
_DESCR = re.compile(r"""['"]descr['"]\s*:\s*(['"])([^'"\\]{1,64})\1\s*[,}]""")
_ORDER = re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)\s*[,}]""")
_SHAPE = re.compile(r"""['"]shape['"]\s*:\s*\(((?:\s*[0-9]{1,19}\s*,)*\s*(?:[0-9]{1,19})?)\s*\)""")
_FIELD = r"""\(\s*(?:'([^'\\]*)'|"([^"\\]*)")\s*,\s*'[^'\\]*'\s*(?:,\s*\([0-9,\s]*\)\s*)?\)\s*"""
_FIELDS = re.compile(rf"""['"]descr['"]\s*:\s*\[\s*((?:{_FIELD},\s*)*{_FIELD})\]""")
_TYPE = re.compile(r"([<>|=])([a-zA-Z])([0-9]{0,6})(\[[0-9a-zA-Z]*\])?")
_LETTERS = {"f": "float", "i": "int", "u": "uint", "c": "complex"}


def read_npy(path: Path) -> TensorFile:
    """Raises UnreadableTensorsError."""
    whole = Region(path=path, offset=0, length=path.stat().st_size)
    return TensorFile(kind="npy", tensors={"array": _array(whole)})


def read_npz(members: Mapping[str, Region]) -> TensorFile:
    """`members` are all named `*.npy`. Raises UnreadableTensorsError."""
    tensors = {name.removesuffix(".npy"): _array(region) for name, region in members.items()}
    return TensorFile(kind="npz", tensors=tensors)


def _array(whole: Region) -> Tensor:
    first = whole.part(0, min(whole.length, LONGEST_START))
    text, start = split_header(next(first.chunks(), b""))
    descr, order, shape = _DESCR.search(text), _ORDER.search(text), header_shape(text)
    if not (descr and order and shape is not None):
        raise UnreadableTensorsError("its header describes no plain array of numbers")
    dtype, big_endian = _dtype(descr[2])
    data = whole.part(start, whole.length - start)
    if prod(shape) * dtype.itemsize != data.length:
        raise UnreadableTensorsError(f"an array of shape {shape} in {data.length:,} bytes")
    strides = contiguous(shape[::-1])[::-1] if order[1] == "True" else contiguous(shape)
    return tensor_at(data, dtype, shape, strides, big_endian)


def split_header(start: bytes) -> tuple[str, int]:
    """The header's text and where the data starts, from a file's first `LONGEST_START` bytes.

    Raises UnreadableTensorsError.
    """
    if len(start) < _FIXED + 4 or not start.startswith(MAGIC):
        raise UnreadableTensorsError("it does not start like an .npy file")
    version = start[len(MAGIC)]
    if version not in (1, 2, 3):
        raise UnreadableTensorsError(f"version {version} of the .npy format is not known")
    width = 2 if version == 1 else 4
    length = int.from_bytes(start[_FIXED : _FIXED + width], "little")
    if length > MAX_HEADER:
        raise UnreadableTensorsError(
            f"a header of {length:,} bytes; at most {MAX_HEADER:,} are read"
        )
    end = _FIXED + width + length
    if end > len(start):
        raise UnreadableTensorsError(f"a header of {length:,} bytes in a file of {len(start):,}")
    encoding = "utf-8" if version == 3 else "latin-1"
    return start[_FIXED + width : end].decode(encoding, "replace"), end


def header_shape(text: str) -> list[int] | None:
    """The shape that a header gives; None where it gives none."""
    shape = _SHAPE.search(text)
    return [int(size) for size in shape[1].split(",") if size.strip()] if shape else None


def header_fields(text: str) -> tuple[str, ...]:
    """The names of a structured array's fields; none where it has no plain ones."""
    fields = _FIELDS.search(text)
    return tuple(one or other for one, other in re.findall(_FIELD, fields[1])) if fields else ()


def _dtype(descr: str) -> tuple[DType, bool]:
    """The type, and whether its bytes are big-endian."""
    match = _TYPE.fullmatch(descr)
    if not match:
        raise UnreadableTensorsError(f"values of type {descr!r}")
    order, letter, size_text, _ = match.groups()
    size = int(size_text or 0)
    if letter == "O":
        raise UnreadableTensorsError("it holds pickled Python objects, which are not read")
    name = "bool" if (letter, size) == ("b", 1) else f"{_LETTERS.get(letter)}{8 * size}"
    if name in DTYPES:
        return DTYPES[name], order == ">"
    if letter == "U":
        return raw_dtype(descr, 4, size), order == ">"
    return raw_dtype(descr, size or 1, 1 if size else 0), order == ">" and letter in "mMfciu"
