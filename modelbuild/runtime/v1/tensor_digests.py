"""Digests of tensors for the recorder of operations: they depend on every byte and its position."""

from __future__ import annotations

import ctypes
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    def beside(name: str) -> dict[str, Any]:
        """That of `bootstrap.py`, which puts it here."""
        ...


ALWAYS_READ_BYTES = 1 << 15
"""Up to this size a digest costs less than an operation, and is taken anew each time."""
WORD = 8
TABLES = ((1031, 0), (1033, WORD // 2))
"""What large memory is looked at as: the columns of each, primes, and its first byte."""
MOST_LINES = 1023
"""Of a table: so it holds fewer words than the product of the two primes."""
memory = beside("digests")["memory"]


class Memory:
    """Digests of memory: of what is small its CRC-32, which is slow for what is large.

    1. As a table of words of 8 bytes it is summed up modulo 2**64, column by column. Then again as
       a table of another width: two words of one column are in two columns there.
    2. The second table begins at the fifth byte: the upper half of a word in one, where two changed
       signs are lost in the carry, is the lower half of a word in the other.
    3. The digest is the CRC-32 of the sums, and of the rest that fills no line.

    But for the CRC three changed halves of words are always seen, wherever they are. Four can
    hide that share their columns in pairs, with other partners in each table: at distances of
    multiples of the one prime and of the other, which no shape of a tensor has by chance.
    """

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        loads = (ctypes.c_char * (2 * ALWAYS_READ_BYTES))()
        self.digest(ctypes.addressof(loads), len(loads))  # what torch loads for it

    def digest(self, address: int, size: int) -> int:
        if size <= ALWAYS_READ_BYTES:
            return crc32(memory(address, size)) if size else 0
        torch, int64, all_ = self.torch, self.torch.int64, memory(address, size)
        crc, summed = 0, size
        with torch._C.DisableTorchFunction():  # the user's modes don't see it
            for columns, at in TABLES:
                while size - at > ALWAYS_READ_BYTES:
                    lines = min((size - at) // (WORD * columns), MOST_LINES)
                    count = lines * columns
                    words = torch.frombuffer(all_, dtype=int64, count=count, offset=at)
                    sums = words.view(lines, columns).sum(0)
                    crc = crc32(memory(sums.data_ptr(), WORD * columns), crc)
                    at += WORD * count
                summed = min(summed, at)
        return crc32(memoryview(all_)[summed:], crc)


class Storage:
    """Memory that tensors share, and what is known of it."""

    __slots__ = ("digests", "fresh", "keep", "source", "whole")

    def __init__(self, keep: Any = None) -> None:
        self.keep = keep
        """Keeps the storage's address from being given to another one; the memory may go."""
        self.source: int | None = None
        """Number of the operation that last wrote to it; -1 where it was only read."""
        self.fresh: str | None = None
        """The line that allocated it, until it is filled."""
        self.whole: int | None = None
        """The digest of all of it, where it is large."""
        self.digests: dict[Any, int] = {}
        """Of large parts of it."""

    def forget(self) -> None:
        """Something may have written to it."""
        self.whole = None
        if self.digests:
            self.digests = {}


class Digests:
    """Digests of tensors.

    That of a large tensor is kept until an operation writes to its storage; what is written past
    torch, such as through `numpy()`, is seen in small ones only.
    """

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.memory = Memory(torch)
        self.types: dict[Any, int] = {}
        """A number for each type of elements: `hash` of it is another in every process."""
        self.known: dict[int, Storage] = {}
        self.nowhere = Storage()
        """Of a tensor without memory of its own, such as a subclass that wraps others."""
        self.nowhere.source = -1

    def storage(self, tensor: Any) -> Storage:
        try:
            storage = tensor.untyped_storage()
        except (RuntimeError, NotImplementedError):
            return self.nowhere
        return self.known.get(storage._cdata) or self._meet(storage)

    def _meet(self, storage: Any) -> Storage:
        # A weak reference, which is never given back: the process ends with the step.
        found = self.known[storage._cdata] = Storage(storage._weak_ref())
        return found

    def written(self, tensor: Any, by: int) -> None:
        """An operation wrote to it; a part that it left out may still be uninitialised."""
        storage = self.storage(tensor)
        if storage is self.nowhere:
            return
        storage.forget()
        storage.source = by
        if storage.fresh and tensor.nbytes >= tensor.untyped_storage().nbytes():
            storage.fresh = None

    def of(self, tensor: Any, *, anew: bool = False) -> tuple[int, Storage]:
        """The digest of a tensor, and where it lies."""
        try:
            all_ = tensor.untyped_storage()
        except (RuntimeError, NotImplementedError):
            return self._without_memory(tensor), self.nowhere
        storage = self.known.get(all_._cdata) or self._meet(all_)
        if anew:
            storage.forget()
        size = tensor.nbytes
        if size != all_.nbytes() or not tensor.is_cpu or tensor.is_neg():
            return self._of_part(tensor, storage), storage
        # All views share one reading, told apart by their shapes.
        if size <= ALWAYS_READ_BYTES:
            whole = crc32(memory(all_.data_ptr(), size)) if size else 0
        elif storage.whole is not None:
            whole = storage.whole
        else:
            whole = storage.whole = self.memory.digest(all_.data_ptr(), size)
        return whole ^ (hash(self._form(tensor)) & 0xFFFFFFFF), storage

    def _of_part(self, tensor: Any, storage: Storage) -> int:
        form = self._form(tensor)
        digest = storage.digests.get(form)
        if digest is None:
            digest = self.read(tensor)
            if tensor.nbytes > ALWAYS_READ_BYTES:
                storage.digests[form] = digest
        return digest

    def _form(self, tensor: Any) -> tuple[Any, ...]:
        """How a tensor lies in its storage: with a hash that is the same in every process."""
        dtype = tensor.dtype
        number = self.types.get(dtype)
        if number is None:
            number = self.types[dtype] = crc32(str(dtype).encode())
        where = (tensor.shape, tensor.stride(), tensor.storage_offset())
        return (*where, number, tensor.is_conj(), tensor.is_neg())

    def _without_memory(self, tensor: Any) -> int:
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
    """Takes values apart: the tensors in lists, tuples and dictionaries, and the text of others."""

    def __init__(self, torch: Any) -> None:
        nest = (list, tuple)
        constants = (bool, int, float, complex, str, bytes, torch.device)
        self.kinds = (
            (torch.Tensor, "tensor"),
            (nest, "nest"),
            (dict, "names"),
            (constants, "constant"),
        )
        self.known: dict[type, str] = {}
        """Of types: `isinstance` calls Python for a parameter."""

    def add(self, values: Any, tensors: list[Any], constants: list[str]) -> None:
        known = self.known
        for value in values:
            kind = known.get(type(value)) or self._learn(type(value))
            if kind == "tensor":
                tensors.append(value)
            elif kind == "constant":
                constants.append(repr(value))
            elif kind == "nest":
                self.add(value, tensors, constants)
            elif kind == "names":
                self.add(value.values(), tensors, constants)

    def _learn(self, type_: type) -> str:
        found = [name for types, name in self.kinds if issubclass(type_, types)]
        self.known[type_] = kind = (found or ["other"])[0]
        return kind
