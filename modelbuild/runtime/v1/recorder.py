"""What the operations of a step read and gave, noted one by one; loaded in explain runs only.

1. Of each operation of torch: its name, the line of the user's code, what went in and what came
   out, as digests that depend on the position of every byte. A backward operation has the line of
   its forward, found by autograd's sequence number.
2. What draws from a generator has the generator's state among its inputs.

Views and `empty` are not recorded: an uninitialised buffer shows at the first operation that reads
it, with the line that allocated it.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
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
VIEWS = frozenset(("aten::_unsafe_view",))
"""Those whose schemas don't say so."""


class Operation:
    """What its schema says of an operation."""

    def __init__(self, function: Any, seeded: Any) -> None:
        schema = getattr(function, "_schema", None)
        self.name = schema.name if schema else str(function)
        returns = schema.returns if schema else ()
        is_view = any(each.alias_info and not each.alias_info.is_write for each in returns)
        self.ignored = is_view or self.name in VIEWS or self.name.startswith("profiler::")
        self.allocates = "empty" in self.name.partition("::")[2].split("_")
        self.draws = seeded in getattr(function, "tags", ())
        written = [
            (index, each)
            for index, each in enumerate(schema.arguments if schema and schema.is_mutable else ())
            if each.alias_info and each.alias_info.is_write
        ]
        self.writes = [(index, each.name) for index, each in written]
        self.unread: set[Any] = {each.name for _, each in written if each.kwarg_only}
        if self.name in WRITE_ONLY:
            self.unread.add(0)
        self.untold = schema is None or (not written and "batch_norm" in self.name)
        """It may write to what it is given, such as a running mean, and does not say so."""

    def written(self, args: Any, kwargs: Any) -> list[Any]:
        """What it writes to, of the arguments of a call."""
        return [
            args[index] if index < len(args) else kwargs.get(name) for index, name in self.writes
        ]

    def read(self, args: Any, kwargs: Any) -> Any:
        if self.unread:
            args = [each for index, each in enumerate(args) if index not in self.unread]
            kwargs = {name: value for name, value in kwargs.items() if name not in self.unread}
        return (*args, *kwargs.values()) if kwargs else args


class Recorder:
    """What has been recorded, and where the process is."""

    def __init__(self, torch: Any, around: Any) -> None:
        digests = beside("tensor_digests")
        self.torch = torch
        self.around = around
        self.events = around.events
        self.digests = digests["Digests"](torch)
        self.flat = digests["Flat"](torch).add
        self.generators = beside("digests")["Generators"](None)
        self.operations: dict[Any, Operation] = {}
        self.lines: dict[int, str | None] = {}
        """Of the forward, by autograd's sequence number."""
        self.node = torch._C._current_autograd_node
        self.made = torch.autograd._get_sequence_nr
        self.sequence: int = self.made()
        self.batch_by: str | None = None
        """Who makes a batch of a `DataLoader` now: this process, or its workers."""

    def run(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Call an operation, and record it."""
        operation = self.operations.get(function)
        if operation is None:
            seeded = getattr(self.torch.Tag, "nondeterministic_seeded", None)
            operation = self.operations[function] = Operation(function, seeded)
        if operation.ignored or self.batch_by == "workers":  # how they hand it over varies
            if self.made() != self.sequence:
                self.place()
            return function(*args, **kwargs)
        line, phase, called = self.place()
        if operation.allocates:
            result = function(*args, **kwargs)
            if isinstance(result, self.torch.Tensor):
                self.digests.storage(result).fresh = line or "?"
            return result
        event: dict[str, Any] = {"op": operation.name, "line": line, "phase": phase}
        if called != line:
            event["called"] = called
        tensors = self.take_in(event, operation, args, kwargs)
        result = function(*args, **kwargs)
        written: list[Any] = []
        if operation.writes:
            self.flat(operation.written(args, kwargs), written, [])
        for tensor in written:
            self.digests.written(tensor, by=len(self.events))
        if operation.untold:
            for tensor in tensors:
                self.digests.storage(tensor).forget()
        self.take_out(event, result, written)
        return result

    def place(self) -> tuple[str | None, str, str | None]:
        """The line that an operation belongs to, its phase, and the line that is being run."""
        called, phase = self.around.line(sys._getframe(2))
        if self.batch_by:
            phase = "data"
        node = self.node()
        line = called
        if node is not None:
            number = node._sequence_nr()
            line = self.lines.get(number, called) if number < NO_NODE else called
            phase = "backward"
        made = self.made()
        for number in range(self.sequence, made):
            self.lines[number] = line
        self.sequence = max(self.sequence, made)
        return line, phase, called

    def take_in(self, event: dict[str, Any], operation: Operation, args: Any, kwargs: Any) -> Any:
        """Note what an operation reads, and give its tensors."""
        tensors: list[Any] = []
        constants: list[str] = []
        self.flat(operation.read(args, kwargs), tensors, constants)
        if constants:
            event["constants"] = ", ".join(constants)[:LONGEST_TEXT]
        event["inputs"], event["sources"] = inputs, sources = [], []
        unseen = False
        for tensor in tensors:
            digest, storage = self.digests.of(tensor)
            inputs.append(digest)
            if storage.fresh:
                event.setdefault("fresh", storage.fresh)
            if storage.source is None:
                unseen = unseen or not tensor.requires_grad
                storage.source = -1
            sources.append(storage.source)
        if operation.draws:
            event["generator"] = self.digests.read(
                self.generator(tensors, args, kwargs).get_state()
            )
        if unseen and event["phase"] in ("forward", "data"):  # not the optimiser's own state
            event["random"] = self.random()
        return tensors

    def take_out(self, event: dict[str, Any], given: Any, written: Any) -> None:
        """Note what an operation gave: what it wrote to, where it returns no tensor."""
        tensors: list[Any] = []
        constants: list[str] = []
        self.flat((given,), tensors, constants)
        if constants:
            event["gave"] = ", ".join(constants)[:LONGEST_TEXT]
        number = len(self.events)
        event["outputs"] = outputs = []
        for tensor in tensors or written:
            digest, storage = self.digests.of(tensor, anew=True)
            storage.source = number
            outputs.append(digest)
        self.events.append(event)

    def random(self) -> int:
        """The state of the generators of `random` and of numpy, where they are loaded."""
        state: int = self.generators.python() << 32 | self.generators.numpy()
        return state

    def generator(self, tensors: Any, args: Any, kwargs: Any) -> Any:
        """The generator that an operation draws from: the one it is given, or the device's."""
        values = (*args, *kwargs.values())
        for each in values:
            if isinstance(each, self.torch.Generator):
                return each
        devices = [each.device for each in tensors[:1]]
        devices += [each for each in values if isinstance(each, self.torch.device)]
        if devices and devices[0].type == "cuda":
            return self.torch.cuda.default_generators[devices[0].index or 0]
        return self.torch.default_generator

    def next_batch(self, frame: Any, batch: Any) -> None:
        """A `DataLoader` gave a batch."""
        line, _ = self.around.line(frame)
        event: dict[str, Any] = {"op": "DataLoader.__next__", "line": line, "phase": "data"}
        event["inputs"] = []
        event["random"] = self.random()
        with self.torch._C._DisableTorchDispatch():
            self.take_out(event, batch, ())
