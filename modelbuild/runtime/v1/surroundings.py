"""What a recording of operations says of the rest of the process; loaded in explain runs only.

Listings of folders are recorded from the start, in the order in which the caller gets them;
readings of the clock as context: the last few before each operation. Neither is an operation.
"""

from __future__ import annotations

import json
import os
import posix
import sys
import time
from collections import deque
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Lineage(Protocol):
        """That of `bootstrap.py`."""

        place: str

    def beside(name: str) -> dict[str, Any]:
        """That of `bootstrap.py`, which puts it here."""
        ...


CLOCKS = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
MOST_LISTINGS = 10_000
LAST_CLOCKS = 50
USERS, LIBRARY, OPTIMIZER = "forward", "library", "optimizer"
ROOT = os.environ.get("MODELBUILD_ROOT", "/build")
SOURCE = f"{ROOT}/src/"
LIBRARIES = ("/site-packages/", "/dist-packages/", f"{ROOT}/runtime/", "/lib/python")


class Around:
    """One recording: its events, and what was seen around them."""

    def __init__(self, explain: dict[str, Any], lineage: Lineage) -> None:
        self.step: int = explain["step"]
        self.knob: str | None = explain["knob"]
        self.lineage = lineage
        self.events: list[dict[str, Any]] = []
        self.listings: list[dict[str, Any]] = []
        self.clocks: deque[tuple[str, str, int, int]] = deque(maxlen=LAST_CLOCKS)
        self.kinds = Kinds()

    def line(self, frame: Any) -> tuple[str | None, str]:
        """The innermost line outside the libraries, and the phase of training it is in."""
        phase, kinds = USERS, self.kinds
        while frame is not None:
            filename = frame.f_code.co_filename
            kind = kinds[filename]
            if kind == USERS:
                return self.shown(filename, frame.f_lineno), phase
            if kind != LIBRARY:
                phase = kind
            frame = frame.f_back
        return None, phase

    def shown(self, filename: str, line: int) -> str:
        if filename.startswith(SOURCE):
            filename = filename[len(SOURCE) :]
        return f"{filename}:{line}"

    def watch(self) -> None:
        for name in CLOCKS:
            setattr(time, name, Clock(self, name, getattr(time, name)))
        sys.addaudithook(self._audit())

    def _audit(self) -> Callable[[str, Any], None]:
        listing = False

        def heard(event: str, args: Any) -> None:
            nonlocal listing
            if (event != "os.listdir" and event != "os.scandir") or listing:
                return
            listing = True
            try:
                self._listed(event, args[0], sys._getframe(1))
            finally:
                listing = False

        return heard

    def _listed(self, name: str, path: Any, frame: Any) -> None:
        """A folder is about to be listed by `frame`: list it first, in the same order."""
        pinned = os.path.basename(frame.f_code.co_filename) == "bootstrap.py"
        caller = frame.f_back if pinned else frame
        if caller.f_code.co_filename.startswith("<frozen") or isinstance(path, int):
            return
        line, _ = self.line(frame)
        if line is None or len(self.listings) == MOST_LISTINGS:
            return
        try:
            names = [os.fsencode(each) for each in posix.listdir(path or ".")]
        except OSError:
            return
        if pinned:
            names.sort()
        self.listings.append(
            {
                "op": name,
                "line": line,
                "at": len(self.events),
                "path": os.fsdecode(path or "."),
                "order": crc32(b"\0".join(names)),
                "names": crc32(b"\0".join(sorted(names))),
            }
        )

    def write(self, torch: Any, *, complete: bool) -> None:
        """The recording, whole or not at all."""
        head = {
            "step": self.step,
            "complete": complete,
            "knob": self.knob,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
        clocks = [
            {"op": f"time.{name}", "line": self.shown(filename, line), "at": at}
            for name, filename, line, at in self.clocks
        ]
        records = [head, *self.listings, *clocks, *self.events]
        path = f"{ROOT}/trace/operations-{self.lineage.place}.jsonl"
        with open(path + ".part", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(each) + "\n" for each in records)
        os.replace(path + ".part", path)


class Clock:
    """A function of `time` that notes who calls it.

    An object, as the plain one is: a function would become a method where it is kept in a class.
    """

    def __init__(self, around: Around, name: str, plain: Callable[[], Any]) -> None:
        self.around = around
        self.plain = plain
        self.__name__ = name
        self.__doc__ = plain.__doc__

    def __call__(self) -> Any:
        frame = sys._getframe(1)
        filename = frame.f_code.co_filename
        around = self.around
        if around.kinds[filename] == USERS:
            around.clocks.append((self.__name__, filename, frame.f_lineno, len(around.events)))
        return self.plain()


class Kinds(dict):  # type: ignore[type-arg]  # Python 3.8
    """Whether a file is the user's, or which part of the libraries it belongs to."""

    def __missing__(self, filename: str) -> str:
        kind = self[filename] = _kind(filename)
        return kind


def _kind(filename: str) -> str:
    if filename.startswith(SOURCE):
        return USERS
    if "/torch/optim/" in filename:
        return OPTIMIZER
    if filename.startswith("<") and filename != "<string>":
        return LIBRARY
    return LIBRARY if any(each in filename for each in LIBRARIES) else USERS


def prepare(request: bytes, lineage: Lineage) -> Around:
    """Read what is to be recorded, turn the knob that is asked for, and watch from now on."""
    around = Around(json.loads(request)["explain"], lineage)
    beside("one_knob")["turn_at_start"](around.knob)
    around.watch()
    return around
