"""Tensors in files, read without numpy, without torch, and without unpickling anything."""

from __future__ import annotations

from modelbuild.store.tensor_files.parameters import count_parameters
from modelbuild.store.tensor_files.reader import read_tensors
from modelbuild.store.tensor_files.tensor import (
    DTYPES,
    DType,
    Kind,
    Region,
    Tensor,
    TensorFile,
    UnreadableTensorsError,
)

__all__ = [
    "DTYPES",
    "DType",
    "Kind",
    "Region",
    "Tensor",
    "TensorFile",
    "UnreadableTensorsError",
    "count_parameters",
    "read_tensors",
]
