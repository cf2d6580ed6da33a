"""A terminal of its own for `modelbuild shell`.

The user's terminal itself must not be handed in: with the TIOCSTI call a process could type
commands into the shell outside. A session without any terminal has no job control. So the
sandbox gets a new pseudo-terminal, and bytes are copied between the two.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import sys
import termios
import threading
import tty
from contextlib import suppress
from types import FrameType

from modelbuild.errors import ModelbuildError

CHUNK_BYTES = 1 << 16


class OwnTerminal:
    """A pseudo-terminal, connected to modelbuild's terminal while `pump` runs."""

    terminal = True

    def __init__(self) -> None:
        self._outer = sys.stdin.fileno()
        self._display = sys.stdout.fileno()
        self._inner, slave = os.openpty()
        self.stdin: int | None = slave
        self.stdout: int | None = slave
        self._copy_size()

    def started(self) -> None:
        if self.stdin is not None:
            os.close(self.stdin)
        self.stdin = self.stdout = None

    def pump(self) -> None:
        before = termios.tcgetattr(self._outer)
        follow = threading.current_thread() is threading.main_thread()
        previous = signal.signal(signal.SIGWINCH, self._copy_size) if follow else None
        try:
            tty.setraw(self._outer, termios.TCSADRAIN)  # keeps what was typed already
            self._copy()
        finally:
            with suppress(termios.error):  # a terminal that has gone needs no settings
                termios.tcsetattr(self._outer, termios.TCSADRAIN, before)
            if follow:
                signal.signal(signal.SIGWINCH, previous)

    def rest(self) -> bytes:
        return b"".join(iter(lambda: _read(self._inner), b""))

    def close(self) -> None:
        self.started()
        os.close(self._inner)

    def _copy(self) -> None:
        while True:
            ready, _, _ = select.select([self._outer, self._inner], [], [])
            if self._inner in ready:
                chunk = _read(self._inner)
                if not chunk:
                    return
                _write(self._display, chunk)
            if self._outer in ready:
                typed = _read(self._outer)
                if not typed:
                    raise ModelbuildError("the shell was ended: its terminal has gone")
                _write(self._inner, typed)

    def _copy_size(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        size = fcntl.ioctl(self._outer, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(self._inner, termios.TIOCSWINSZ, size)


def _read(terminal: int) -> bytes:
    """Empty once the last process on the other side has gone."""
    try:
        return os.read(terminal, CHUNK_BYTES)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
