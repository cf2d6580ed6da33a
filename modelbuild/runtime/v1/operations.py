"""Records every operation of one step, for `modelbuild verify --explain`; loaded in its runs only.

1. From the end of the step before, a dispatch mode hands every operation of torch to the recorder.
2. So is what a `DataLoader` gives.
3. At the end of the step the recording is written into the trace folder, and the process ends.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    def beside(name: str) -> dict[str, Any]:
        """That of `bootstrap.py`, which puts it here."""
        ...


class Window:
    """From the end of the step before to the end of the step that is asked for."""

    def __init__(self, torch: Any, around: Any, finish: Callable[[], None]) -> None:
        self.torch = torch
        self.around = around
        self.finish = finish
        self.process = os.getpid()
        self.steps = 0
        self.mode: Any = None
        optimizer = import_module("torch.optim.optimizer")
        optimizer.register_optimizer_step_post_hook(self.step_ended)
        atexit.register(self.process_ended)
        os.register_at_fork(after_in_child=self.close)
        self.open_if_due()

    def open_if_due(self) -> None:
        if self.steps != self.around.step - 1:
            return
        recorder = beside("recorder")["Recorder"](self.torch, self.around)
        self.mode = make_mode(recorder)
        self.mode.__enter__()
        watch_batches(self, recorder)

    def close(self) -> None:
        if self.mode is not None:
            self.mode.__exit__(None, None, None)
            self.mode = None

    def step_ended(self, *_: Any) -> None:
        if os.getpid() != self.process:
            return
        self.steps += 1
        self.open_if_due()
        if self.steps == self.around.step:
            self.close()
            self.around.write(self.torch, complete=True)
            self.finish()

    def process_ended(self) -> None:
        """The training had fewer steps."""
        if os.getpid() == self.process and self.mode is not None:
            self.close()
            self.around.write(self.torch, complete=False)


def make_mode(recorder: Any) -> Any:
    """torch keeps Dynamo from compiling a mode; while it compiles nothing, that is left out."""
    base: Any = import_module("torch.utils._python_dispatch").TorchDispatchMode
    run = recorder.run

    class Recording(base):  # type: ignore[misc]
        supports_higher_order_operators = True

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return run(func, args, kwargs or {})

    guarded = Recording.__torch_dispatch__
    frames = sys.modules.get("torch._C._dynamo.eval_frame")
    compiling = getattr(frames, "get_eval_frame_callback", None)
    if compiling is not None:

        def dispatch(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if compiling() is None:
                return run(func, args, kwargs or {})
            return guarded(self, func, types, args, kwargs)

        Recording.__torch_dispatch__ = dispatch  # type: ignore[method-assign]
    return Recording()


def watch_batches(window: Window, recorder: Any) -> None:
    """Record what the iterators of `DataLoader` give; those that exist have their class's."""
    iterator = import_module("torch.utils.data.dataloader")._BaseDataLoaderIter
    plain_next = iterator.__next__

    def next_batch(self: Any) -> Any:
        recorder.batch_by = "workers" if self._num_workers else "process"
        try:
            batch = plain_next(self)
        finally:
            recorder.batch_by = None
        if window.mode is not None:
            recorder.next_batch(sys._getframe(1), batch)
        return batch

    iterator.__next__ = next_batch


def end_process() -> None:
    """With the children: what comes after the step is not wanted.

    The death of a child is news to nobody by then: `DataLoader` would raise in this process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    processes = sys.modules.get("multiprocessing.process")
    for child in processes.active_children() if processes else ():
        child.kill()
    os._exit(0)


def record(torch: Any, around: Any) -> None:
    """Record the operations of step `around.step`, counted from 1, and end the process."""
    beside("one_knob")["turn_after_torch"](around.knob, torch)
    Window(torch, around, end_process)
