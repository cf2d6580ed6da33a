"""Which files of a folder are opened while a command runs, by whatever program (inotify)."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_OPEN = 0x20
_IS_FOLDER = 0x40000000
_MOST_FOLDERS = 4000
_EVENT = struct.Struct("iIII")
_NOT_WATCHED = frozenset({"__pycache__", "node_modules", "site-packages"})


class OpenedFiles:
    """Audit events miss what libraries open in C, and what other programs than Python open.

    Where the kernel has no room for it, nothing is seen.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[int, str] = {}
        self._found: set[str] = set()
        self._source = -1
        self._end = os.pipe()
        self._reader = threading.Thread(target=self._read, daemon=True)

    @property
    def paths(self) -> frozenset[Path]:
        return frozenset(map(Path, self._found))

    def __enter__(self) -> Self:
        libc = ctypes.CDLL(None, use_errno=True)
        self._source = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._source >= 0:
            for place, folders, _ in os.walk(self._root):
                folders[:] = [
                    name
                    for name in folders
                    if not name.startswith(".")
                    and name not in _NOT_WATCHED
                    and not os.path.exists(os.path.join(place, name, "pyvenv.cfg"))
                ]
                if len(self._folders) < _MOST_FOLDERS:
                    watch = libc.inotify_add_watch(self._source, os.fsencode(place), _OPEN)
                    self._folders[watch] = place
            self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._end[1])
        if self._source >= 0:
            self._reader.join()
            self._take()
            os.close(self._source)
        os.close(self._end[0])

    def _read(self) -> None:
        """Until the other end of the pipe is closed."""
        from select import select

        while self._end[0] not in select([self._source, self._end[0]], [], [])[0]:
            self._take()

    def _take(self) -> None:
        """All events that wait."""
        while True:
            try:
                data = os.read(self._source, 65536)
            except BlockingIOError:
                return
            position = 0
            while position < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, position)
                position += _EVENT.size
                name = os.fsdecode(data[position : position + length].rstrip(b"\0"))
                position += length
                if name and not mask & _IS_FOLDER and watch in self._folders:
                    self._found.add(os.path.join(self._folders[watch], name))
