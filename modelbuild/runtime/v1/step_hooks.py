"""Where the recorder of `steps.py` looks into torch."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from modelbuild.runtime.v1.steps import Steps
    from modelbuild.runtime.v1.trace_file import Book, Lineage

    def beside(name: str) -> dict[str, Any]:
        """That of `bootstrap.py`, which puts it here."""
        ...


safely = beside("trace_file")["safely"]


def install(torch: Any, lineage: Lineage) -> None:
    """Record what this process trains, if the stage is asked to."""
    file = beside("trace_file")
    request = file["read_request"]()
    if request:
        book = file["book_of"](lineage, request)
        safely(book, _install)(torch, lineage, book, request)


def _install(torch: Any, lineage: Lineage, book: Book, request: dict[str, Any]) -> None:
    check = beside("undone")["watch"](torch, lineage, book)
    if book.every:
        steps = beside("steps")["Steps"](torch, book, check, whole=bool(request.get("whole")))
        _hook(torch, steps)
        os.register_at_fork(after_in_child=steps.forked)
        import atexit

        atexit.register(safely(book, steps.finish))


def _hook(torch: Any, steps: Steps) -> None:
    compiling = _compiling(torch)
    starting, stepped = safely(steps.book, steps.starting), safely(steps.book, steps.stepped)

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


def _compiling(torch: Any) -> Callable[[], bool]:
    """Whether Dynamo looks at what is run, or a CUDA graph would take in what is done here."""
    by_dynamo: Callable[[], bool] = torch.compiler.is_dynamo_compiling
    if torch.version.cuda is None:
        return by_dynamo

    def either() -> bool:
        captured = torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
        return by_dynamo() or captured

    return either


def _hook_models(torch: Any, steps: Steps, compiling: Callable[[], bool]) -> None:
    """In the place of `Module.__call__`: Dynamo, imported later, takes it for torch's own."""
    grad_enabled = torch.is_grad_enabled
    given, made = safely(steps.book, steps.given), safely(steps.book, steps.made)

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

    losing = safely(steps.book, steps.losing)
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
