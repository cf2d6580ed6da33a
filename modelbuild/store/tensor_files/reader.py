"""Which reader a file gets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelbuild.store.tensor_files.tensor import Region, TensorFile, UnreadableTensorsError

_SUFFIXES = frozenset([".npz", ".pt", ".pth", ".ckpt"])
"""Of archives; one that is named so and can't be read is an error, not another kind of file."""


def read_tensors(path: Path) -> TensorFile | None:
    """What a file of tensors holds; None where it is another kind of file.

    A safetensors file is known by its name, others by how they start. Raises
    UnreadableTensorsError where the file is damaged, or made to harm.
    """
    from modelbuild.store.tensor_files import numpy_files, torch_files

    if path.suffix == ".safetensors":
        from modelbuild.store.tensor_files.safetensors import read_safetensors

        return read_safetensors(path)
    with path.open("rb") as file:
        start = file.read(32)
    if start.startswith(numpy_files.MAGIC):
        return numpy_files.read_npy(path)
    if start.startswith(torch_files.LEGACY_MAGIC):
        raise UnreadableTensorsError("it has torch's format from before version 1.6")
    if start.startswith(b"PK\3\4"):
        return _read_archive(path)
    return None


def _read_archive(path: Path) -> TensorFile | None:
    from modelbuild.store.tensor_files import archive, numpy_files, torch_files

    try:
        members = archive.archive_members(path)
    except UnreadableTensorsError:
        if path.suffix in _SUFFIXES:
            raise
        return None
    if members and all(name.endswith(".npy") for name in members):
        return numpy_files.read_npz(members)
    root = _root(members)
    return None if root is None else torch_files.read_torch(members, root)


def _root(members: Mapping[str, Region]) -> str | None:
    """The folder of torch's archives: it is named after the file, as it was saved."""
    roots = [name.split("/")[0] for name in members if name.count("/") == 1]
    pickles = [root for root in dict.fromkeys(roots) if f"{root}/data.pkl" in members]
    return pickles[0] if len(pickles) == 1 else None
