"""Says which of torch's settings a script undid: at its first step, and when it ends."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Book(Protocol):
        """That of `steps.py`."""

        def note(self, text: str) -> None: ...


class Settings:
    """What the bootstrap left torch set to, and which line of the script set what since."""

    def __init__(self, torch: Any, book: Book) -> None:
        self.torch = torch
        self.book = book
        self.lines: dict[str, str] = {}
        self.pinned = self.now()
        # A script may have changed the libraries' own variables before it imported torch.
        self.pinned["threads"] = int(os.environ["MODELBUILD_THREADS"])

    def now(self) -> dict[str, Any]:
        torch = self.torch
        return {
            "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
            "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
            "cudnn.deterministic": torch.backends.cudnn.deterministic,
            "cudnn.benchmark": torch.backends.cudnn.benchmark,
            "oneDNN": torch.backends.mkldnn.enabled,
            "threads": torch.get_num_threads(),
        }

    def check(self, where: str) -> None:
        """Note what is no longer as it was, and in which process."""
        for name, value in self.now().items():
            if value != self.pinned[name]:
                self.book.note(f"{self._words(name, value)}{self.lines.get(name, '')}{where}")

    def _words(self, name: str, value: Any) -> str:
        if name == "threads":
            return f"the script set torch to {value} threads instead of {self.pinned[name]}"
        if name == "warn_only":
            return "the script made operations that are not deterministic a warning"
        return f"the script turned {'on' if value else 'off'} {name}"

    def watched(self, names: tuple[str, ...], setter: Callable[..., Any]) -> Callable[..., Any]:
        """A setter that remembers where it was called from."""
        from functools import wraps

        @wraps(setter)
        def call(*args: Any, **kwargs: Any) -> Any:
            result = setter(*args, **kwargs)
            for name in names:
                self.lines[name] = calling_line()
            return result

        return call


def calling_line() -> str:
    """` (train.py:12)`: the innermost line that belongs to no library."""
    libraries = (sys.prefix, sys.base_prefix, os.path.dirname(__file__), "<")
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith(libraries):
            source = os.environ.get("MODELBUILD_ROOT", "/build") + "/src/"
            return f" ({path[len(source) :] if path.startswith(source) else path}:{frame.f_lineno})"
        frame = frame.f_back
    return ""


def watch(torch: Any, lineage: Any, book: Book) -> Callable[[], None]:
    """What notes the settings that the script undid until now; it is called at the end, too.

    Processes that a script started set their number of threads on purpose: they are not asked. The
    ranks of torchrun are; what reads the notes says once what all of them say.
    """
    settings = Settings(torch, book)
    algorithms = ("deterministic algorithms", "warn_only")
    for owner, attribute, names in (
        (torch, "use_deterministic_algorithms", algorithms),
        (torch, "set_deterministic_debug_mode", algorithms),
        (torch, "set_num_threads", ("threads",)),
    ):
        setattr(owner, attribute, settings.watched(names, getattr(owner, attribute)))
    for module, attribute, name in (
        (torch.backends.cudnn, "deterministic", "cudnn.deterministic"),
        (torch.backends.cudnn, "benchmark", "cudnn.benchmark"),
        (torch.backends.mkldnn, "enabled", "oneDNN"),
    ):
        prop = type(module).__dict__[attribute]
        prop.setter = settings.watched((name,), prop.setter)

    def check() -> None:
        if lineage.is_rank:
            settings.check(f", in rank {os.environ['RANK']} of {os.environ.get('WORLD_SIZE', 1)}")
        elif lineage.place == "0":
            settings.check("")

    import atexit

    atexit.register(check)
    return check
