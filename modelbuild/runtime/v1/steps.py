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

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from modelbuild.runtime.v1.trace_file import Book, Lineage

    def beside(name: str) -> dict[str, Any]:
        """That of `bootstrap.py`, which puts it here."""
        ...


MOST_MARKED = 64
NONE = float("nan")
_file = beside("trace_file")
RECORD = _file["RECORD"]
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
        self.seen: Any = None

    # 1. the batch

    def given(self, model: Any, args: Any, kwargs: Any) -> None:
        self.batch = self.tensors.batch((args, kwargs), self._made_here, self.batch)
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
        self.seen = (self.batch, self.calls, *self._random(), crc, value)
        self.batch = self.calls = 0

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
            columns = (0, 0, 0, *self._random(), 0, 0, crc, NONE)
            self.book.write(RECORD.pack(START, PARAMETERS, number, *columns[:2], *columns[2:]))

    def stepped(self, optimiser: Any) -> None:
        known = self.optimisers[id(optimiser)]
        turn = known[2] = known[2] + 1
        gradients = parameters = None
        if turn == 1 or turn % self.every == 0:
            tensors = parameters_of(optimiser)
            gradients = self.digest([tensor.grad for tensor in tensors], turn)
            parameters = self.digest(tensors, turn)
        self._record(STEP, known[1], gradients, parameters)
        self.marked = {}

    def _record(
        self, kind: int, source: int = 0, gradients: int | None = None, parameters: Any = None
    ) -> None:
        has = 0
        if self.seen is None:
            batch, calls, loss, value = 0, 0, 0, NONE
            python, numpy, of_torch = self._random()
        else:
            batch, calls, python, numpy, of_torch, loss, value = self.seen
            has |= LOSS
        if kind == STEP and self.calls:  # a model ran after the backward pass
            batch = self.crc32(self.batch.to_bytes(4, "little"), batch)
            calls += self.calls
            self.batch = self.calls = 0
        if kind == BACKWARD and self.models:
            alive = [model for model in (each() for each in self.models) if model is not None]
            tensors = [tensor for model in alive for tensor in model.parameters()]
            parameters = self.digest(tensors, self.book.count)
        has |= BATCH if calls else 0
        has |= 0 if gradients is None else GRADIENTS
        has |= 0 if parameters is None else PARAMETERS
        record = RECORD.pack(
            *(kind, has, source & 0xFFFF, min(calls, 0xFFFF), min(self.backwards, 0xFFFF)),
            *(batch, python, numpy, of_torch, loss, gradients or 0, parameters or 0, value),
        )
        self.seen, self.backwards = None, 0
        self.book.write(record)

    def finish(self) -> None:
        if self.seen is not None:
            self._record(BACKWARD)
        self.book.flush()

    def forked(self) -> None:
        self.book.forked()
        self.forget()


def parameters_of(optimiser: Any) -> list[Any]:
    return [tensor for group in optimiser.param_groups for tensor in group["params"]]


def install(torch: Any, lineage: Lineage) -> None:
    """Record what this process trains, if the stage is asked to."""
    request = _file["read_request"]()
    if not request:
        return
    book = _file["Book"](lineage, request.get("every", 0))
    _safely(book, _install)(torch, lineage, book, request)


def _install(torch: Any, lineage: Lineage, book: Book, request: dict[str, Any]) -> None:
    check = beside("undone")["watch"](torch, lineage, book)
    if book.every:
        steps = Steps(torch, book, check, whole=bool(request.get("whole")))
        _hook(torch, steps)
        os.register_at_fork(after_in_child=steps.forked)
        import atexit

        atexit.register(_safely(book, steps.finish))


def _safely(book: Book, act: Callable[..., None]) -> Callable[..., None]:
    """`act` as long as nothing went wrong."""

    def safe(*args: Any) -> None:
        if not book.stopped:
            try:
                act(*args)
            except Exception as error:
                book.stop(error)

    return safe


def _hook(torch: Any, steps: Steps) -> None:
    compiling = torch.compiler.is_dynamo_compiling
    starting, stepped = _safely(steps.book, steps.starting), _safely(steps.book, steps.stepped)

    def before(optimiser: Any, *_: Any) -> None:
        if not compiling():
            starting(optimiser)

    def after(optimiser: Any, *_: Any) -> None:
        if not compiling():
            stepped(optimiser)

    optimizer = sys.modules["torch.optim.optimizer"]
    optimizer.register_optimizer_step_pre_hook(before)
    optimizer.register_optimizer_step_post_hook(after)
    _hook_models(torch, steps, compiling)
    _hook_backward(torch, steps, compiling)


def _hook_models(torch: Any, steps: Steps, compiling: Callable[[], bool]) -> None:
    """In the place of `Module.__call__`: Dynamo, imported later, takes it for torch's own."""
    grad_enabled = torch.is_grad_enabled
    given, made = _safely(steps.book, steps.given), _safely(steps.book, steps.made)

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        call = self._compiled_call_impl or self._call_impl
        if steps.inside or compiling() or not grad_enabled():
            return call(*args, **kwargs)
        steps.inside = True
        try:
            given(self, args, kwargs)
            result = call(*args, **kwargs)
            made(result)
            return result
        finally:
            steps.inside = False

    torch.nn.Module.__call__ = __call__


def _hook_backward(torch: Any, steps: Steps, compiling: Callable[[], bool]) -> None:
    from functools import wraps

    losing = _safely(steps.book, steps.losing)
    running = False

    def hooked(plain: Callable[..., Any], counts: Callable[..., bool]) -> Callable[..., Any]:
        @wraps(plain)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal running
            if steps.inside or running or compiling() or not counts(*args, **kwargs):
                return plain(*args, **kwargs)
            running = True
            try:
                losing(args[0] if args else kwargs.get("tensors", kwargs.get("outputs")))
                return plain(*args, **kwargs)
            finally:
                running = False

        return call

    def last(*args: Any, **kwargs: Any) -> bool:
        """A gradient that is no part of another one."""
        create_graph = kwargs.get("create_graph", args[4] if len(args) > 4 else False)
        return not create_graph

    torch.autograd.backward = hooked(torch.autograd.backward, lambda *_, **__: True)
    torch.autograd.grad = hooked(torch.autograd.grad, last)
