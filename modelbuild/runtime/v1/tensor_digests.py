"""Digests of tensors for the recorder of operations: CRCs that depend on every byte's position."""

from __future__ import annotations

import ctypes
from importlib import import_module
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ALWAYS_READ_BYTES = 1 << 15
"""Up to this size a digest costs less than an operation, and is taken anew each time."""


class Storage:
    """Memory that tensors share, and what is known of it."""

    def __init__(self, weak: Any) -> None:
        self.weak = weak
        """Keeps the storage's address from being given to another one."""
        self.digests: dict[Any, int] = {}
        self.source: int | None = None
        """Number of the operation that last wrote to it; -1 where it was only read."""
        self.fresh: str | None = None
        """The line that allocated it, until it is filled."""


class Digests:
    """CRCs of tensors.

    That of a large tensor is kept until an operation writes to its storage; what is written past
    torch, such as through `numpy()`, is seen in small ones only.
    """

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.known: dict[int, Storage] = {}
        self.nowhere = Storage(None)
        """Of a tensor without memory of its own, such as a subclass that wraps others."""
        self.nowhere.source = -1
        self.weak = import_module("torch.multiprocessing.reductions").StorageWeakRef

    def storage(self, tensor: Any) -> Storage:
        try:
            storage = tensor.untyped_storage()
            address = storage._cdata
        except (RuntimeError, NotImplementedError):
            return self.nowhere
        found = self.known.get(address)
        if found is None:
            found = self.known[address] = Storage(self.weak(storage))
        return found

    def written(self, tensor: Any, by: int) -> None:
        """An operation wrote to it; a part that it left out may still be uninitialised."""
        storage = self.storage(tensor)
        if storage is self.nowhere:
            return
        storage.digests.clear()
        storage.source = by
        if tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes():
            storage.fresh = None

    def of(self, tensor: Any, storage: Storage, *, anew: bool = False) -> int:
        if tensor.layout is not self.torch.strided:
            return self._sparse(tensor)
        if storage is self.nowhere:
            return 0
        size = tensor.numel() * tensor.element_size()
        kept = not (anew or size <= ALWAYS_READ_BYTES)
        memory = tensor.untyped_storage()
        if size == memory.nbytes() and tensor.is_cpu and not tensor.is_neg():
            # All views of the whole share one reading, told apart by their shapes.
            whole = storage.digests.get("whole") if kept else None
            if whole is None:
                whole = storage.digests["whole"] = _of_memory(memory.data_ptr(), size)
            shape = (tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.is_conj())
            return crc32(repr(shape).encode(), whole)
        key = (tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        digest = storage.digests.get(key) if kept else None
        if digest is None:
            digest = storage.digests[key] = self.read(tensor)
        return digest

    def _sparse(self, tensor: Any) -> int:
        if tensor.layout is not self.torch.sparse_coo:
            return 0
        parts = (tensor._indices(), tensor._values())
        return crc32(repr([self.read(part) for part in parts]).encode())

    def read(self, tensor: Any) -> int:
        """The digest of what it holds now, in the order of its indices."""
        size = tensor.numel() * tensor.element_size()
        if size == 0 or tensor.device.type == "meta":
            return 0
        tensor = tensor.cpu().resolve_neg().resolve_conj().contiguous()
        return _of_memory(tensor.data_ptr(), size)


def _of_memory(address: int, size: int) -> int:
    return crc32((ctypes.c_char * size).from_address(address)) if size else 0


class Flat:
    """The tensors in a nest of lists, tuples and dictionaries, and the text of all else."""

    def __init__(self, torch: Any, value: Any) -> None:
        self.torch = torch
        self.tensors: list[Any] = []
        self.constants: list[str] = []
        self.generators: list[Any] = []
        self.device: Any = None
        self.add(value)

    def add(self, value: Any) -> None:
        torch = self.torch
        if isinstance(value, torch.Tensor):
            self.tensors.append(value)
        elif isinstance(value, (list, tuple)):
            for each in value:
                self.add(each)
        elif isinstance(value, dict):
            for each in value.values():
                self.add(each)
        elif isinstance(value, torch.Generator):
            self.generators.append(value)
        elif isinstance(value, (bool, int, float, complex, str, bytes)):
            self.constants.append(repr(value))
        elif isinstance(value, torch.device):
            self.device = value
            self.constants.append(str(value))
