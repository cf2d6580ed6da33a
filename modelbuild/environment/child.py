"""Child processes that end with us: a killed build leaves none behind."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Run in a child before its program, or in a worker: have the kernel end it with its parent.

    The parent is the thread that started the child, which therefore has to wait for it.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
