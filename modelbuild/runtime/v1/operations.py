"""Records every operation of one step, for `modelbuild verify --explain`; loaded in its runs only.

1. From the end of the step before, a dispatch mode sees every operation of torch: its name, the
   line of the user's code, what went in and what came out, as digests that depend on the position
   of every byte. A backward operation has the line of its forward, found by autograd's sequence
   number.
2. What draws from a generator has the generator's state among its inputs.
3. At the end of the step the recording is written into the trace folder, and the process ends.

Views and `empty` are not recorded: an uninitialised buffer shows at the first operation that reads
it, with the line that allocated it.
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


LONGEST_TEXT = 300
NO_NODE = 1 << 63
"""Above the sequence number of any node that has a forward."""
WRITE_ONLY = frozenset(
    "aten::" + name
    for name in (
        *("copy_", "fill_", "zero_", "normal_", "uniform_", "random_", "bernoulli_"),
        *("exponential_", "log_normal_", "geometric_", "cauchy_", "set_", "resize_"),
    )
)
"""They overwrite what they are called on, and never read it."""


class Operation:
    """What its schema says of an operation."""

    def __init__(self, function: Any, seeded: Any) -> None:
        schema = getattr(function, "_schema", None)
        arguments = schema.arguments if schema else ()
        returns = schema.returns if schema else ()
        self.name = schema.name if schema else str(function)
        is_view = any(each.alias_info and not each.alias_info.is_write for each in returns)
        self.ignored = is_view or self.name.startswith("profiler::")
        self.allocates = "empty" in self.name.partition("::")[2].split("_")
        self.draws = seeded in getattr(function, "tags", ())
        written = [
            (index, each)
            for index, each in enumerate(arguments)
            if each.alias_info and each.alias_info.is_write
        ]
        self.writes = [(index, each.name) for index, each in written]
        self.unread: set[Any] = {each.name for _, each in written if each.kwarg_only}
        if self.name in WRITE_ONLY:
            self.unread.add(0)

    def written(self, args: Any, kwargs: Any) -> list[Any]:
        """What it writes to, of the arguments of a call."""
        return [
            args[index] if index < len(args) else kwargs.get(name) for index, name in self.writes
        ]

    def read(self, args: Any, kwargs: Any) -> list[Any]:
        named = [value for name, value in kwargs.items() if name not in self.unread]
        return [each for index, each in enumerate(args) if index not in self.unread] + named


class Recorder:
    """What has been recorded, and where the process is."""

    def __init__(self, torch: Any, around: Any) -> None:
        digests = beside("tensor_digests")
        self.torch = torch
        self.around = around
        self.digests = digests["Digests"](torch)
        self.flat: Callable[..., Any] = lambda value: digests["Flat"](torch, value)
        self.operations: dict[Any, Operation] = {}
        self.lines: dict[int, str | None] = {}
        """Of the forward, by autograd's sequence number."""
        self.sequence = torch.autograd._get_sequence_nr()
        self.batch_by: str | None = None
        """Who makes a batch of a `DataLoader` now: this process, or its workers."""

    def run(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Call an operation, and record it."""
        operation = self.operations.get(function)
        if operation is None:
            seeded = getattr(self.torch.Tag, "nondeterministic_seeded", None)
            operation = self.operations[function] = Operation(function, seeded)
        line, phase, called = self.place()
        if operation.ignored or self.batch_by == "workers":  # how they hand it over varies
            return function(*args, **kwargs)
        if operation.allocates:
            result = function(*args, **kwargs)
            if isinstance(result, self.torch.Tensor):
                self.digests.storage(result).fresh = line or "?"
            return result
        event = {"op": operation.name, "line": line, "phase": phase}
        if called != line:
            event["called"] = called
        self.take_in(event, operation, self.flat(operation.read(args, kwargs)))
        result = function(*args, **kwargs)
        written = self.flat(operation.written(args, kwargs))
        for tensor in written.tensors:
            self.digests.written(tensor, by=len(self.around.events))
        given = self.flat(result)
        self.take_out(event, given if given.tensors or not written.tensors else written)
        return result

    def place(self) -> tuple[str | None, str, str | None]:
        """The line that an operation belongs to, its phase, and the line that is being run."""
        called, phase = self.around.line(sys._getframe(3))
        if self.batch_by:
            phase = "data"
        node = self.torch._C._current_autograd_node()
        line = called
        if node is not None:
            number = node._sequence_nr()
            line = self.lines.get(number, called) if number < NO_NODE else called
            phase = "backward"
        made = self.torch.autograd._get_sequence_nr()
        for number in range(self.sequence, made):
            self.lines[number] = line
        self.sequence = max(self.sequence, made)
        return line, phase, called

    def take_in(self, event: dict[str, Any], operation: Operation, read: Any) -> None:
        storages = [self.digests.storage(tensor) for tensor in read.tensors]
        event["inputs"] = [
            self.digests.of(tensor, storage)
            for tensor, storage in zip(read.tensors, storages)  # noqa: B905  # Python 3.8
        ]
        if read.constants:
            event["constants"] = ", ".join(read.constants)[:LONGEST_TEXT]
        fresh = [storage.fresh for storage in storages if storage.fresh]
        if fresh:
            event["fresh"] = fresh[0]
        if operation.draws:
            event["generator"] = self.digests.read(self.generator(read).get_state())
        unseen = any(
            storage.source is None and not tensor.requires_grad
            for tensor, storage in zip(read.tensors, storages)  # noqa: B905
        )
        if unseen and event["phase"] in ("forward", "data"):  # not the optimiser's own state
            event["random"] = self.around.random_states()
        for storage in storages:
            if storage.source is None:
                storage.source = -1
        event["sources"] = [storage.source for storage in storages]

    def take_out(self, event: dict[str, Any], given: Any) -> None:
        number = len(self.around.events)
        event["outputs"] = []
        for tensor in given.tensors:
            storage = self.digests.storage(tensor)
            storage.source = number
            event["outputs"].append(self.digests.of(tensor, storage, anew=True))
        if given.constants:
            event["gave"] = ", ".join(given.constants)[:LONGEST_TEXT]
        self.around.events.append(event)

    def generator(self, read: Any) -> Any:
        """The generator that an operation draws from: the one it is given, or the device's."""
        if read.generators:
            return read.generators[0]
        device = read.tensors[0].device if read.tensors else read.device
        if device is not None and device.type == "cuda":
            return self.torch.cuda.default_generators[device.index or 0]
        return self.torch.default_generator

    def next_batch(self, frame: Any, batch: Any) -> None:
        """A `DataLoader` gave a batch."""
        line, _ = self.around.line(frame)
        event: dict[str, Any] = {"op": "DataLoader.__next__", "line": line, "phase": "data"}
        event["inputs"] = []
        event["random"] = self.around.random_states()
        with self.torch._C._DisableTorchDispatch():
            self.take_out(event, self.flat(batch))


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
        recorder = Recorder(self.torch, self.around)
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


def make_mode(recorder: Recorder) -> Any:
    base: Any = import_module("torch.utils._python_dispatch").TorchDispatchMode

    class Recording(base):  # type: ignore[misc]
        supports_higher_order_operators = True

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return recorder.run(func, args, kwargs or {})

    return Recording()


def watch_batches(window: Window, recorder: Recorder) -> None:
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
