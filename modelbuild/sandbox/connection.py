"""What a stage's stdin, stdout and stderr are connected to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

CHUNK_BYTES = 1 << 20


class Pipe:
    """A pipe of which either end may be closed early, and both are at the end."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self.reader, self.writer = os.pipe()
        self._open = {self.reader, self.writer}

    def close_reader(self) -> None:
        self._close(self.reader)

    def close_writer(self) -> None:
        self._close(self.writer)

    def read(self) -> bytes:
        """All of it: blocks until every writer has gone."""
        return b"".join(iter(lambda: os.read(self.reader, CHUNK_BYTES), b""))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close_reader()
        self.close_writer()

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.remove(descriptor)
            os.close(descriptor)


class Connection(Protocol):
    """Where output goes and input comes from."""

    terminal: bool
    """Whether the stage gets a terminal of its own, with job control."""
    stdin: int | None
    stdout: int | None
    """Of stderr too. None: modelbuild's own."""

    def started(self) -> None:
        """The other side holds its ends now."""

    def pump(self) -> None:
        """Copy until the other side has closed."""

    def rest(self) -> bytes:
        """What was written by a sandbox that never came up."""

    def close(self) -> None: ...


class Streamed:
    """No input; stdout and stderr as one stream of chunks."""

    terminal = False

    def __init__(self, on_output: Callable[[bytes], None]) -> None:
        self._on_output = on_output
        self._pipe = Pipe()
        self._widen()
        self.stdin: int | None = os.open(os.devnull, os.O_RDONLY)
        self.stdout: int | None = self._pipe.writer

    def started(self) -> None:
        self._pipe.close_writer()

    def pump(self) -> None:
        while chunk := os.read(self._pipe.reader, CHUNK_BYTES):
            self._on_output(chunk)

    def rest(self) -> bytes:
        return self._pipe.read()

    def close(self) -> None:
        self._pipe.__exit__(None, None, None)
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    def _widen(self) -> None:
        """A pipe of 64 KiB, the default, halves what a chatty stage can print in a second."""
        import fcntl

        try:
            fcntl.fcntl(self._pipe.writer, fcntl.F_SETPIPE_SZ, CHUNK_BYTES)
        except PermissionError:
            return  # the user's allowance for pipes is used up


class Inherited:
    """modelbuild's own stdin, stdout and stderr: the other side of `modelbuild shell` in a pipe."""

    terminal = False
    stdin: int | None = None
    stdout: int | None = None

    def started(self) -> None:
        """Nothing to let go of."""

    def pump(self) -> None:
        """Nothing passes through here."""

    def rest(self) -> bytes:
        return b""

    def close(self) -> None:
        """Nothing is ours."""


def connect(interactive: bool, on_output: Callable[[bytes], None]) -> Connection:
    if not interactive:
        return Streamed(on_output)
    if sys.stdin.isatty() and sys.stdout.isatty():
        from modelbuild.sandbox.terminal import OwnTerminal

        return OwnTerminal()
    return Inherited()
