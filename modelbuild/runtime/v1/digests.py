"""Digests of tensors and of random number generators, read where they lie in memory.

No operation of torch is run for a tensor on a CPU that lies in one piece: nothing is drawn,
allocated or seen by a dispatch mode. A digest is a CRC-32, of a part of what is large: of a
parameter or gradient a window of a 32nd, at least WINDOW bytes, that moves on with every step. A
whole model in every step would take longer than many a training.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    def beside(name: str) -> dict[str, Any]:
        """That of `bootstrap.py`, which puts it here."""
        ...


WINDOW = 256
PARTS = 32
HELD = 1 << 20
"""Bytes from which on a batch that is given again, unchanged, is not read again."""
STATE = 64
"""Bytes of a Mersenne Twister's 2496 that tell two of them apart: all are replaced at once, and
where it stands among them is digested too."""
DEEPEST = 6

_VALUES = {"torch.float32": "<f", "torch.float64": "<d", "torch.float16": "<e"}
_arrays: dict[int, Any] = {}
crc32 = zlib.crc32


def array_type(size: int) -> Any:
    _arrays[size] = ctypes.c_char * size
    return _arrays[size]


def memory(address: int, size: int) -> Any:
    """`size` bytes at `address`, to be read at once: nothing keeps them alive."""
    return (_arrays.get(size) or array_type(size)).from_address(address)


class Tensors:
    """Digests of the tensors of one torch."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.plain = (torch.Tensor, torch.nn.Parameter)
        self.held: list[tuple[Any, int, int]] = []
        self.devices: dict[Any, Any] = {}
        self.pieces: dict[Any, list[Any]] = {}
        """Of tensors on other devices, by device: not digested yet."""

    def windows(self, tensors: Iterable[Any], turn: int) -> int:
        """Of a part of each tensor, which part depends on `turn`; None counts too."""
        plain, arrays = self.plain, _arrays
        part = turn % PARTS
        crc = 0
        for tensor in tensors:
            if type(tensor) in plain and tensor.is_cpu and tensor.is_contiguous():
                size, address = tensor.nbytes, tensor.data_ptr()
                if size > WINDOW:
                    length = max(WINDOW, size // PARTS)
                    address += (size - length) * part // (PARTS - 1)
                    size = length
                array = arrays.get(size) or array_type(size)
                crc = crc32(array.from_address(address), crc)
            else:
                crc = self.whole(tensor, crc, turn)
        return crc

    def wholes(self, tensors: Iterable[Any], turn: int) -> int:
        """As `windows`, but of all bytes in every turn."""
        crc = 0
        for tensor in tensors:
            crc = self.whole(tensor, crc)
        return crc

    def whole(self, tensor: Any, crc: int = 0, turn: int | None = None) -> int:
        """Of all bytes of a tensor; of one that can't be read, of its shape.

        One on another device is kept for `on_devices`; with `turn`, a window of it.
        """
        if tensor is None:
            return crc32(b"none", crc)
        if type(tensor) in self.plain and tensor.is_cpu and tensor.is_contiguous():
            return crc32(memory(tensor.data_ptr(), tensor.nbytes), crc)
        try:
            return self._unusual(tensor, crc, turn)
        except RuntimeError:  # a tensor without values, such as those that a compiler traces with
            return crc32(repr(tuple(tensor.shape)).encode(), crc)

    def _unusual(self, tensor: Any, crc: int, turn: int | None) -> int:
        with self.torch._C.DisableTorchFunctionSubclass(), self.torch.no_grad():
            tensor = getattr(tensor, "_local_tensor", tensor)
            if tensor.layout is not self.torch.strided:
                if tensor.layout is self.torch.sparse_coo:
                    return self.whole(tensor._values(), self.whole(tensor._indices(), crc))
                tensor = tensor.to_dense()
            if self.elsewhere(tensor):
                device = self.device(tensor.device)
                piece = device.sample(tensor) if turn is None else device.window(tensor, turn)
                self.pieces.setdefault(tensor.device, []).append(piece)
                return crc
            if not tensor.is_cpu:
                return crc32(repr(tuple(tensor.shape)).encode(), crc)
            if not tensor.is_contiguous():
                tensor = self._in_one_piece(tensor)
            return crc32(memory(tensor.data_ptr(), tensor.nbytes), crc)

    def elsewhere(self, tensor: Any) -> bool:
        """Whether it is to be digested on its own device."""
        found: bool = tensor.is_cuda
        return found

    def device(self, device: Any) -> Any:
        if device not in self.devices:
            self.devices[device] = beside("device_digests")["OnDevice"](self.torch, device)
        return self.devices[device]

    def on_devices(self) -> list[tuple[Any, int]]:
        """Digest what was kept: which cells of which devices will hold it."""
        if not self.pieces:
            return []
        pieces, self.pieces = self.pieces, {}
        with self.torch.no_grad():
            return [
                (self.devices[where], self.devices[where].put(all_))
                for where, all_ in pieces.items()
            ]

    def _in_one_piece(self, tensor: Any) -> Any:
        """The same memory in the order in which it lies, where there are no gaps; else a copy."""
        order = sorted(range(tensor.dim()), key=lambda axis: -tensor.stride(axis))
        turned = tensor.permute(order)
        return turned if turned.is_contiguous() else tensor.contiguous()

    def batch(self, given: Any, skip: Any, crc: int, depth: int = 0) -> int:
        """Of the tensors that were given to a model, in tuples, lists and dictionaries too.

        Those for which `skip` is true are left out.
        """
        if isinstance(given, self.torch.Tensor):
            return crc if skip(given) else self._held(given, crc)
        if isinstance(given, (tuple, list)) and depth < DEEPEST:
            for each in given:
                crc = self.batch(each, skip, crc, depth + 1)
        elif hasattr(given, "values") and depth < DEEPEST:
            for each in given.values():
                crc = self.batch(each, skip, crc, depth + 1)
        return crc

    def _held(self, tensor: Any, crc: int) -> int:
        """`whole`, but of a large one that was given before what it was then."""
        size = tensor.numel() * tensor.element_size()  # a sparse one has no `nbytes`
        if size < HELD or type(tensor) not in self.plain or not tensor.is_cpu:
            return self.whole(tensor, crc)
        import weakref

        for reference, version, found in self.held:
            if reference() is tensor and version == tensor._version:
                return crc32(struct.pack("<I", found), crc)
        found = self.whole(tensor)
        self.held = [(weakref.ref(tensor), tensor._version, found), *self.held[:7]]
        return crc32(struct.pack("<I", found), crc)

    def value(self, tensor: Any) -> float:
        """Of a tensor of one element, for people: not a number where it is something else."""
        form = _VALUES.get(str(tensor.dtype))
        usual = type(tensor) in self.plain and tensor.is_cpu and tensor.numel() == 1
        if form is None or not usual:
            return float("nan")
        size = struct.calcsize(form)
        return float(struct.unpack(form, memory(tensor.data_ptr(), size).raw)[0])


class Generators:
    """Digests of the states of the generators that scripts draw from without naming one."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.bits: Any = None
        self.address = 0
        self.engine = 0 if torch is None else self._find_engine()

    def python(self) -> int:
        random = sys.modules.get("random")
        if random is None:
            return 0
        # struct RandomObject { PyObject_HEAD; int index; uint32_t state[624]; }
        return crc32(memory(id(random._inst) + object.__basicsize__, 4 + STATE))

    def numpy(self) -> int:
        module = sys.modules.get("numpy.random.mtrand")
        if module is None or not hasattr(module, "_rand"):
            return 0
        bits = module._rand._bit_generator
        if bits is not self.bits:
            self.bits = bits
            self.address = bits.ctypes.state_address if type(bits).__name__ == "MT19937" else 0
        if not self.address:
            return crc32(repr(bits.state).encode())
        # struct { uint32_t key[624]; int pos; }
        return crc32(memory(self.address + 2496, 4), crc32(memory(self.address, STATE)))

    def _find_engine(self) -> int:
        """Where the state of torch's generator lies: `get_state()` copies it, which takes longer
        than all else that is done in a step. 0 where it is not found.
        """
        generator = self.torch.default_generator
        state = generator.get_state()
        # struct { uint64_t seed; int left, seeded; uint64_t next, state[624]; ... }
        words = struct.unpack_from("<16Q", memory(state.data_ptr(), 24 + 128).raw, 24)
        # struct { uint64_t seed; int left; bool seeded; uint32_t next; uint32_t state[624]; ... }
        found = memory(generator._cdata, 512).raw.find(struct.pack("<16I", *words))
        return generator._cdata + found - 12 if found > 0 else 0

    def of_torch(self) -> int:
        if self.engine:
            # Between the two lies a `bool`, with three bytes that are whatever was there before.
            crc = crc32(memory(self.engine + 8, 4 + STATE), crc32(memory(self.engine, 4)))
        else:
            state = self.torch.default_generator.get_state()
            crc = crc32(memory(state.data_ptr(), state.nbytes))
        if self.torch.cuda.is_initialized():
            for generator in self.torch.cuda.default_generators:
                state = generator.get_state()
                crc = crc32(memory(state.data_ptr(), state.nbytes), crc)
        return crc
