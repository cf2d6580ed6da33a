"""Records every step of a training: digests of batch, random numbers, loss, gradients, parameters.

The folder `trace` of the stage holds `request.json`, which says what to record. A process that
trains writes `steps-<lineage>.bin`: a line of JSON, then records of one size.

1. The batch is what the outermost module was given since the last step, while gradients are
   wanted: evaluations in between don't count. What a module made, and another is given, neither.
2. The loss is what `backward` starts from. A backward pass that another one follows, with no step
   in between (accumulated gradients, updates by hand), has a record of its own.
3. Gradients and parameters are those of the optimiser, after its step; before its first step the
   parameters alone.
4. Anything unexpected ends the recording with a note. The training goes on as if nothing was.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from modelbuild.runtime.v1.trace_file import Book

    def beside(name: str) -> dict[str, Any]:
        """That of `bootstrap.py`, which puts it here."""
        ...


MOST_MARKED = 64
NONE = float("nan")
_file = beside("trace_file")
RECORD, COLUMNS = _file["RECORD"], _file["COLUMNS"]
STEP, BACKWARD, START = _file["STEP"], _file["BACKWARD"], _file["START"]
BATCH, LOSS, GRADIENTS, PARAMETERS = (
    _file[name] for name in ("BATCH", "LOSS", "GRADIENTS", "PARAMETERS")
)


class Steps:
    """What was seen since the last record."""

    def __init__(
        self, torch: Any, book: Book, on_first_step: Callable[[], None], *, whole: bool
    ) -> None:
        digests = beside("digests")
        self.torch = torch
        self.book = book
        self.every = book.every
        self.tensors = digests["Tensors"](torch)
        self.generators = digests["Generators"](torch)
        self.digest = self.tensors.wholes if whole else self.tensors.windows
        self.crc32 = digests["crc32"]
        self.on_first_step = on_first_step
        self.inside = False
        self.optimisers: dict[int, list[Any]] = {}
        self.models: list[Any] = []
        self.marked: dict[int, Any] = {}
        self.forget()

    def forget(self) -> None:
        self.batch = self.calls = self.backwards = 0
        self.batch_cells: list[Any] = []
        self.seen: Any = None
        self.late: list[Any] = []

    # 1. the batch

    def given(self, model: Any, args: Any, kwargs: Any) -> None:
        self.batch = self.tensors.batch((args, kwargs), self._made_here, self.batch)
        self.batch_cells += self.tensors.on_devices()
        self.calls += 1
        if not self.optimisers and len(self.models) < MOST_MARKED:
            import weakref

            if not any(each() is model for each in self.models):
                self.models.append(weakref.ref(model))

    def _made_here(self, tensor: Any) -> bool:
        return tensor.requires_grad or (
            bool(self.marked) and tensor.untyped_storage()._cdata in self.marked
        )

    def made(self, result: Any) -> None:
        """Mark what a model made: the storage, so that `detach()` does not hide it.

        A weak reference keeps its number from being given to another storage.
        """
        results = result if isinstance(result, (tuple, list)) else (result,)
        for each in results:
            if isinstance(each, self.torch.Tensor) and each.requires_grad:
                reference = self.torch.multiprocessing.reductions.StorageWeakRef(
                    each.untyped_storage()
                )
                self.marked[reference.cdata] = reference
        while len(self.marked) > MOST_MARKED:
            del self.marked[next(iter(self.marked))]

    # 2. the loss

    def losing(self, roots: Any) -> None:
        if self.seen is not None:
            self._record(BACKWARD)
        roots = (roots,) if isinstance(roots, self.torch.Tensor) else tuple(roots)
        crc, value = 0, NONE
        for root in roots:
            if isinstance(root, self.torch.Tensor):
                crc, value = self.tensors.whole(root, crc), self.tensors.value(root)
        self.backwards += 1
        cells = {"batch": self.batch_cells, "loss": self.tensors.on_devices()}
        self.seen = (self.batch, self.calls, *self._random(), crc, value, cells)
        self.batch = self.calls = 0
        self.batch_cells = []

    def _random(self) -> tuple[int, int, int]:
        generators = self.generators
        return generators.python(), generators.numpy(), generators.of_torch()

    # 3. the step

    def starting(self, optimiser: Any) -> None:
        """Before a step: the parameters, where it is the first."""
        known = self.optimisers.get(id(optimiser))
        if known is None or known[0]() is not optimiser:
            import weakref

            number = len(self.optimisers) + 1
            self.optimisers[id(optimiser)] = [weakref.ref(optimiser), number, 0]
            self.models = []
            if number == 1:
                self.on_first_step()
            crc = self.tensors.wholes(parameters_of(optimiser), 0)
            cells = {"parameters": self.tensors.on_devices()}
            columns = (0, 0, 0, *self._random(), 0, 0, crc, NONE)
            self._write([START, PARAMETERS, number, *columns], cells)

    def stepped(self, optimiser: Any) -> None:
        known = self.optimisers[id(optimiser)]
        turn = known[2] = known[2] + 1
        gradients = parameters = None
        cells: dict[str, Any] = {}
        if turn == 1 or turn % self.every == 0:
            tensors = parameters_of(optimiser)
            gradients = self.digest([tensor.grad for tensor in tensors], turn)
            cells = {"gradients": self.tensors.on_devices()}
            parameters = self.digest(tensors, turn)
        self._record(STEP, known[1], gradients, parameters, cells)
        self.marked = {}

    def _record(
        self,
        kind: int,
        source: int = 0,
        gradients: int | None = None,
        parameters: int | None = None,
        cells: Any = None,
    ) -> None:
        has = 0
        if self.seen is None:
            batch, calls, loss, value = 0, 0, 0, NONE
            python, numpy, of_torch = self._random()
            cells = {**(cells or {}), "batch": []}
        else:
            batch, calls, python, numpy, of_torch, loss, value, seen_cells = self.seen
            cells = {**(cells or {}), **seen_cells}
            has |= LOSS
        if kind == STEP and self.calls:  # a model ran after the backward pass
            batch = self.crc32(self.batch.to_bytes(4, "little"), batch)
            calls += self.calls
            cells["batch"] = cells["batch"] + self.batch_cells
            self.batch = self.calls = 0
            self.batch_cells = []
        if kind == BACKWARD and self.models:
            alive = [model for model in (each() for each in self.models) if model is not None]
            tensors = [tensor for model in alive for tensor in model.parameters()]
            parameters = self.digest(tensors, self.book.count)
        if parameters is not None:
            cells["parameters"] = self.tensors.on_devices()
        has |= BATCH if calls else 0
        has |= 0 if gradients is None else GRADIENTS
        has |= 0 if parameters is None else PARAMETERS
        columns = [
            *(kind, has, source & 0xFFFF, min(calls, 0xFFFF), min(self.backwards, 0xFFFF)),
            *(batch, python, numpy, of_torch, loss, gradients or 0, parameters or 0, value),
        ]
        self.seen, self.backwards = None, 0
        self._write(columns, cells)

    def _write(self, columns: list[Any], cells: dict[str, Any]) -> None:
        """Now, or, where a digest is still on a device, when the device is asked for many."""
        if not self.late and not any(cells.values()):
            self.book.write(RECORD.pack(*columns))
            return
        self.late.append((columns, cells))
        if any(device.due for device in self.tensors.devices.values()):
            self._fetch()

    def _fetch(self) -> None:
        late, self.late = self.late, []
        held = {device: device.fetch() for device in self.tensors.devices.values()}
        for columns, cells in late:
            for name, places in cells.items():
                for device, cell in places:
                    value = held[device][cell % len(held[device])].to_bytes(
                        8, "little", signed=True
                    )
                    column = COLUMNS.index(name)
                    columns[column] = self.crc32(value, columns[column])
            self.book.write(RECORD.pack(*columns))

    def finish(self) -> None:
        if self.seen is not None:
            self._record(BACKWARD)
        self._fetch()
        self.book.flush()

    def forked(self) -> None:
        """In a child, after a fork: it starts with nothing seen, and with no device."""
        self.forget()
        self.tensors.devices = {}


def parameters_of(optimiser: Any) -> list[Any]:
    return [tensor for group in optimiser.param_groups for tensor in group["params"]]
