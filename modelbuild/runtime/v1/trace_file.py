"""The files in which a process records its training: `steps-<lineage>.bin` and `notes-...txt`."""

from __future__ import annotations

import os
import struct
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Lineage(Protocol):
        """That of `bootstrap.py`."""

        place: str


STEP, BACKWARD, START, FIT, ROUND = 1, 2, 3, 4, 5
"""What a record is of: an optimiser's step, a backward pass without one, the parameters before the
first step, a call of `fit`, a round of boosting."""
BATCH, LOSS, GRADIENTS, PARAMETERS = 1, 2, 4, 8
"""Which columns a record has. Of a round, `gradients` holds the settings, `parameters` what the
round made, and `torch` the booster's own seeds."""
RECORD = struct.Struct("<BBHHHIIIIIIId")
COLUMNS = (
    *("kind", "has", "source", "calls", "backwards"),
    *("batch", "python", "numpy", "torch", "loss", "gradients", "parameters", "value"),
)
MOST_RECORDS = 20_000_000
WAITING = 1000
"""Bytes of records after which they are written: what a process that is killed loses."""


def trace_folder() -> str:
    return os.environ.get("MODELBUILD_ROOT", "/build") + "/trace"


def read_request() -> dict[str, Any]:
    """What to record; nothing where there is no such folder, or a script emptied it."""
    try:
        with open(f"{trace_folder()}/request.json", "rb") as file:
            text = file.read()
    except OSError:
        return {}
    import json

    try:
        request = json.loads(text)
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}


class Book:
    """The files that this process writes, each there from its first line on."""

    def __init__(self, lineage: Lineage, every: int) -> None:
        self.lineage = lineage
        self.every = every
        self.file: int | None = None
        self.waiting = bytearray()
        self.count = 0
        self.stopped = False
        self.said: set[str] = set()

    def write(self, record: bytes) -> None:
        if self.file is None:
            self.file = self._open("steps", "bin")
            columns = ", ".join(f'"{name}"' for name in COLUMNS)
            head = f'{{"modelbuild_trace": 1, "every": {self.every}, "columns": [{columns}]}}\n'
            self.waiting += head.encode()
        if self.count == MOST_RECORDS:
            raise OverflowError(f"{MOST_RECORDS} records are the most")
        self.count += 1
        self.waiting += record
        if len(self.waiting) >= WAITING:
            self.flush()

    def flush(self) -> None:
        if self.file is not None:
            os.write(self.file, self.waiting)
            self.waiting.clear()

    def note(self, text: str) -> None:
        """A line for whoever reads the build's result."""
        if text in self.said:
            return
        self.said.add(text)
        path = f"{trace_folder()}/notes-{self.lineage.place}.txt"
        with suppress(OSError):  # the script removed the folder, or filled the disk
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            os.write(file, (text + "\n").encode(errors="replace"))
            os.close(file)

    def stop(self, error: BaseException) -> None:
        self.stopped = True
        with suppress(OSError):
            self.flush()
        self.note(f"steps are not recorded after {self.count:,} records: {error!r}")

    def forked(self) -> None:
        """In a child, after a fork: what the parent writes to is not the child's."""
        if self.file is not None:
            os.close(self.file)
        self.file, self.count = None, 0
        self.waiting.clear()

    def _open(self, kind: str, suffix: str) -> int:
        """Processes that a shell starts one after another may have one lineage: a number, too."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        number = 1
        while True:
            more = "" if number == 1 else f"-{number}"
            path = f"{trace_folder()}/{kind}-{self.lineage.place}{more}.{suffix}"
            try:
                return os.open(path, flags, 0o644)
            except FileExistsError:
                number += 1


_books: list[Book] = []


def book_of(lineage: Lineage, request: dict[str, Any]) -> Book:
    """The one of this process."""
    if not _books:
        every = request.get("every")
        _books.append(Book(lineage, every if isinstance(every, int) else 0))
        os.register_at_fork(after_in_child=_books[0].forked)
    return _books[0]


def safely(book: Book, act: Callable[..., None]) -> Callable[..., None]:
    """`act` as long as nothing went wrong."""

    def safe(*args: Any) -> None:
        if not book.stopped:
            try:
                act(*args)
            except Exception as error:
                book.stop(error)

    return safe
