"""Digests of tensors for the recorder of operations: they depend on every byte and its position."""

from __future__ import annotations

import ctypes
from importlib import import_module
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ALWAYS_READ_BYTES = 1 << 15
"""Up to this size a digest costs less than an operation, and is taken anew each time."""
ROW = 1024
"""Words of 8 bytes that are summed up together."""


class Memory:
    """Digests of memory: of what is small its CRC-32, which is slow for what is large.

    There every row is multiplied by fixed odd weights and summed up modulo 2**64 by torch, once in
    words of 8 bytes from the first byte on and once from the fifth: the upper bits of a product
    don't depend on the lower ones of its weight, so that of a word's upper half two changed signs
    could cancel. The sums' CRC-32 is the digest.
    """

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        seen = bytearray(import_module("hashlib").shake_128(b"weights").digest(ROW * 8))
        seen[::8] = bytes(each | 1 for each in seen[::8])
        self.weights = torch.frombuffer(seen, dtype=torch.int64).clone()
        self.digest(self.weights.data_ptr(), 2 * ALWAYS_READ_BYTES)  # what torch loads for it

    def digest(self, address: int, size: int) -> int:
        if not size:
            return 0
        memory = (ctypes.c_char * size).from_address(address)
        if size <= ALWAYS_READ_BYTES:
            return crc32(memory)
        rows = (size - 4) // (ROW * 8)
        crc = crc32(memoryview(memory)[rows * ROW * 8 :])
        with self.torch._C.DisableTorchFunction():  # the user's modes don't see it
            for offset in (0, 4):
                words = self.torch.frombuffer(
                    memory, dtype=self.torch.int64, count=rows * ROW, offset=offset
                )
                sums = words.view(rows, ROW).mv(self.weights)
                crc = crc32((ctypes.c_char * (rows * 8)).from_address(sums.data_ptr()), crc)
        return crc


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
    """Digests of tensors.

    That of a large tensor is kept until an operation writes to its storage; what is written past
    torch, such as through `numpy()`, is seen in small ones only.
    """

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.memory = Memory(torch)
        self.shapes: dict[Any, int] = {}
        """CRCs of the shapes that the whole of a storage was seen in."""
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
        if tensor.nbytes >= tensor.untyped_storage().nbytes():
            storage.fresh = None

    def of(self, tensor: Any, storage: Storage, *, anew: bool = False) -> int:
        if tensor.layout is not self.torch.strided:
            return self._sparse(tensor)
        if storage is self.nowhere:
            return 0
        size = tensor.nbytes
        memory = tensor.untyped_storage()
        kept = not anew and size > ALWAYS_READ_BYTES
        whole = storage.digests.get("whole") if kept else None
        if whole is None and size == memory.nbytes() and tensor.is_cpu and not tensor.is_neg():
            whole = storage.digests["whole"] = self.memory.digest(memory.data_ptr(), size)
        if whole is not None:  # all views share one reading, told apart by their shapes
            return whole ^ self._shape(tensor)
        key = (tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        digest = storage.digests.get(key) if kept else None
        if digest is None:
            digest = storage.digests[key] = self.read(tensor)
        return digest

    def _shape(self, tensor: Any) -> int:
        offset, bits = tensor.storage_offset(), (tensor.is_conj(), tensor.is_neg())
        shape = (tensor.shape, tensor.stride(), offset, tensor.dtype, bits)
        crc = self.shapes.get(shape)
        if crc is None:
            crc = self.shapes[shape] = crc32(repr(shape).encode())
        return crc

    def _sparse(self, tensor: Any) -> int:
        if tensor.layout is not self.torch.sparse_coo:
            return 0
        parts = (tensor._indices(), tensor._values())
        return crc32(repr([self.read(part) for part in parts]).encode())

    def read(self, tensor: Any) -> int:
        """The digest of what it holds now, in the order of its indices."""
        size = tensor.nbytes
        if size == 0 or tensor.device.type == "meta":
            return 0
        tensor = tensor.cpu().resolve_neg().resolve_conj().contiguous()
        return self.memory.digest(tensor.data_ptr(), size)


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
