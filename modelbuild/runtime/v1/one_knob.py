"""Turns one knob of a run, to see whether a difference vanishes with it; in explain runs only.

Each takes away one thing that can make two runs differ, whatever the script or the recipe says. A
script's own call that would turn it back does nothing.
"""

from __future__ import annotations

import posix
import time
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

START = 1_600_000_000
TICK_NANOSECONDS = 1_000_000
CLOCKS = ("time", "monotonic", "perf_counter", "process_time", "thread_time")


def freeze_clock() -> None:
    """Time goes on by a millisecond each time that it is read, so that what waits for it ends."""
    read = 0

    def nanoseconds() -> int:
        nonlocal read
        read += 1
        return START * 1_000_000_000 + read * TICK_NANOSECONDS

    for name in CLOCKS:
        setattr(time, name, _Clock(lambda: nanoseconds() / 1e9))
        setattr(time, f"{name}_ns", _Clock(nanoseconds))
    _freeze_dates()


class _Clock:
    """An object: a function would become a method where it is kept in a class."""

    def __init__(self, read: Callable[[], Any]) -> None:
        self.read = read

    def __call__(self) -> Any:
        return self.read()


def _freeze_dates() -> None:
    """`datetime` asks C for the time."""
    import datetime as module

    plain = module.datetime

    class datetime(plain):  # type: ignore[misc,valid-type]  # noqa: N801
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.fromtimestamp(time.time(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(module.timezone.utc).replace(tzinfo=None)  # noqa: UP017

        @classmethod
        def today(cls) -> Any:
            return cls.now()

    datetime.__module__, datetime.__qualname__ = plain.__module__, plain.__qualname__
    setattr(module, "datetime", datetime)  # noqa: B010


def sort_listings() -> None:
    """Those that the bootstrap does not sort, because a script asks beside it."""
    plain: Any = posix.listdir
    setattr(posix, "listdir", lambda path=None: sorted(plain(path)))  # noqa: B010


def one_thread(torch: Any) -> None:
    torch.set_num_threads(1)
    torch.set_num_threads = _ignored


def deterministic(torch: Any) -> None:
    """Operations without a deterministic version warn, and run as they do."""
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    torch.use_deterministic_algorithms = _ignored
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def fill_memory(torch: Any) -> None:
    """torch fills what it allocates where algorithms are to be deterministic."""
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms = _ignored
    for name in ("_set_deterministic_algorithms", "_set_deterministic_fill_uninitialized_memory"):
        setattr(torch._C, name, _ignored)


def no_workers(_: Any) -> None:
    """`DataLoader` makes its batches in the process itself."""
    loader = import_module("torch.utils.data").DataLoader
    plain_init = loader.__init__
    workers_only = ("prefetch_factor", "persistent_workers", "multiprocessing_context", "timeout")

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        for name in workers_only:
            kwargs.pop(name, None)
        if len(args) > 5:
            args = (*args[:5], 0, *args[6:])
        else:
            kwargs["num_workers"] = 0
        plain_init(self, *args, **kwargs)

    loader.__init__ = init


def _ignored(*_: Any, **__: Any) -> None:
    pass


AT_START: dict[str, Callable[[], None]] = {"clock": freeze_clock, "listings": sort_listings}
AFTER_TORCH: dict[str, Callable[[Any], None]] = {
    "threads": one_thread,
    "deterministic": deterministic,
    "memory": fill_memory,
    "workers": no_workers,
}


def turn_at_start(knob: str | None) -> None:
    if knob in AT_START:
        AT_START[knob]()


def turn_after_torch(knob: str | None, torch: Any) -> None:
    if knob in AFTER_TORCH:
        AFTER_TORCH[knob](torch)
