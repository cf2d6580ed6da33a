"""Digests of tensors on a GPU, computed there, with no wait in between.

A digest is the sum of the elements' bits, each multiplied by a fixed random number of its place,
modulo 2**64: a permutation, a sign or a swapped pair changes it. It is put into a cell of a buffer
on the device. What a record says is known when the buffer is fetched, once in many steps.

Written from torch's documents: on a GPU it has not been run yet. The tests run it on a CPU.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CELLS = 4096
FETCHED_AFTER = 1024
PARTS = 32
WINDOW = 256
LONGEST = 1 << 16
"""Elements of one parameter that are looked at in one step."""
MOST = 1 << 20
"""Elements of one tensor of a batch: of larger ones every second, third, ... is looked at."""


class OnDevice:
    """The buffer of one device, and what goes into it."""

    def __init__(self, torch: Any, device: Any) -> None:
        self.torch = torch
        self.device = device
        self.cells = torch.zeros(CELLS, dtype=torch.int64, device=device)
        self.used = 0
        self.fetched = 0
        self.weights: Any = None

    @property
    def due(self) -> bool:
        return self.used - self.fetched >= FETCHED_AFTER

    def window(self, tensor: Any, turn: int) -> Any:
        """The part of a parameter that is looked at in this turn, as integers."""
        bits = self.bits(tensor)
        count = bits.numel()
        if count <= WINDOW:
            return bits
        length = min(max(WINDOW, count // PARTS), LONGEST)
        start = (count - length) * (turn % PARTS) // (PARTS - 1)
        return bits[start : start + length]

    def sample(self, tensor: Any) -> Any:
        """A tensor of a batch as integers; of a large one, elements all over it."""
        bits = self.bits(tensor)
        return bits[:: -(-bits.numel() // MOST)] if bits.numel() > MOST else bits

    def bits(self, tensor: Any) -> Any:
        flat = tensor.detach().reshape(-1)
        size = flat.element_size()
        kind = {1: self.torch.int8, 2: self.torch.int16}.get(size, self.torch.int32)
        return flat.view(kind)

    def put(self, pieces: list[Any]) -> int:
        """Digest the pieces one after another; the number of the cell that will hold it."""
        torch = self.torch
        bits = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        count = bits.numel()
        if self.weights is None or self.weights.numel() < count:
            self.weights = self._make_weights(count)
        cell = self.used
        torch.sum(bits * self.weights[:count], dim=0, out=self.cells[cell % CELLS])
        self.used += 1
        return cell

    def _make_weights(self, count: int) -> Any:
        """Odd numbers of 64 bits, from a generator of their own."""
        torch = self.torch
        generator = torch.Generator().manual_seed(20)
        size = 1 << max(count - 1, 1).bit_length()
        least, most = -(2**63), 2**63 - 1
        drawn = torch.randint(least, most, (size,), generator=generator, dtype=torch.int64)
        return (drawn | 1).to(self.device)

    def fetch(self) -> list[int]:
        """All cells, by number modulo CELLS; waits for the device."""
        self.fetched = self.used
        found: list[int] = self.cells.tolist()
        return found
