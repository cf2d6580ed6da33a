"""How many parameters a model has, from its files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from modelbuild.store.tensor_files.reader import read_tensors
from modelbuild.store.tensor_files.tensor import Kind, TensorFile, UnreadableTensorsError

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_SHARD = re.compile(r"(.*)-\d{5}-of-\d{5}(\.\w+)")
_STATE = re.compile(r"(?:^|(?<=\.))state\.")


def count_parameters(folder: Path) -> int | None:
    """The floating-point values of the model that lies in `folder`; None where there is none.

    A model is one file, or the shards `NAME-00001-of-00002.SUFFIX` together. Of several models
    the largest counts: the others are checkpoints or parts of it. An optimiser's state is not
    counted, and tensors that share their storage are counted once. Buffers (a batch norm's
    running mean) count as parameters: the files do not tell them apart. Files that can't be
    read as tensors are passed over.
    """
    models: dict[str, int] = {}
    for path in _model_files(folder):
        try:
            found = read_tensors(path)
        except UnreadableTensorsError:
            continue
        if found is not None:
            shard = _SHARD.fullmatch(str(path))
            model = shard[1] + shard[2] if shard else str(path)
            models[model] = models.get(model, 0) + _parameters(found)
    return max(models.values(), default=0) or None


def _model_files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if path.suffix in _SUFFIXES and path.is_file() and not path.is_symlink():
                yield path


def _parameters(file: TensorFile) -> int:
    optimisers = _optimisers(file)
    places = {
        (tensor.region.path, tensor.region.offset, tensor.region.start, tensor.shape): tensor.count
        for name, tensor in file.tensors.items()
        if tensor.dtype.kind is Kind.FLOAT and not _below(name, optimisers)
    }
    return sum(places.values())


def _optimisers(file: TensorFile) -> set[str]:
    """How the names of optimisers' tensors start: beside `state` they have `param_groups`."""
    found = set()
    for name in file.values:
        before, groups, _ = name.partition("param_groups.")
        if groups and (not before or before.endswith(".")):
            found.add(f"{before}state.")
    return found


def _below(name: str, starts: set[str]) -> bool:
    return any(name[: match.end()] in starts for match in _STATE.finditer(name))
