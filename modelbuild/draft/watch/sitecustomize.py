"""Writes down what a process opens, imports, starts and connects to.

A copy of this file lies in a folder of its own at the head of PYTHONPATH, so that Python imports
it first in every process of an observed command; what is seen is written beside it. It runs in
the environment of the user, on any Python from 3.8 on, and must never disturb the program.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_HERE = os.path.dirname(os.path.abspath(__file__))
_MOST_OF_A_FOLDER = 1000
"""Files of one folder that are written down one by one: enough to tell that it is the folder."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _Notebook:
    """One file for a process and those that it forks.

    Opened for each line: a program may close all files, and open its own under our number.
    """

    def __init__(self) -> None:
        self._path = os.path.join(_HERE, f"{time.time_ns()}-{os.getpid()}.jsonl")
        self._seen: set[str] = set()
        self._folders: dict[str, int] = {}

    def write(self, *words: object) -> None:
        line = json.dumps(words)
        if line not in self._seen:
            self._seen.add(line)
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(file, (line + "\n").encode())
            finally:
                os.close(file)

    def has_room(self, path: str) -> bool:
        folder = os.path.dirname(path)
        self._folders[folder] = self._folders.get(folder, 0) + 1
        return self._folders[folder] <= _MOST_OF_A_FOLDER


_notebook = _Notebook()


def _absolute(path: Any) -> str:
    return os.path.abspath(os.fsdecode(path))


def _opened(path: Any, _: str | None, flags: int) -> None:
    if isinstance(path, int):
        return
    absolute = _absolute(path)
    if absolute.startswith(_HERE):
        return
    if flags & _WRITING:
        _notebook.write("write", absolute)
    if not flags & (os.O_WRONLY | os.O_TRUNC) and _notebook.has_room(absolute):
        _notebook.write("read", absolute)


def _database(path: Any) -> None:
    _opened(path, None, os.O_RDWR)


def _listed(path: Any = None) -> None:
    if not isinstance(path, int):
        _notebook.write("list", _absolute("." if path is None else path))


def _imported(name: str, *_: object) -> None:
    _notebook.write("import", name)


def _script(path: Any) -> None:
    _notebook.write("script", _absolute(path))


def _module(name: str) -> None:
    _notebook.write("module", name)


def _started(executable: Any, words: Any, *_: object) -> None:
    texts = [os.fsdecode(executable)] if executable else []
    words = [words] if isinstance(words, (str, bytes)) else words
    _notebook.write("start", [*texts, *(os.fsdecode(word) for word in words)])


def _system(command: Any) -> None:
    _notebook.write("start", ["sh", "sh", "-c", os.fsdecode(command)])


def _resolved(host: Any, *_: object) -> None:
    if host:
        _notebook.write("host", os.fsdecode(host))


def _requested(url: str, *_: object) -> None:
    _notebook.write("url", url)


def _connected(_: object, address: object) -> None:
    if isinstance(address, tuple):
        _notebook.write("connect", str(address[0]))


_WATCHED: dict[str, Callable[..., None]] = {
    "open": _opened,
    "sqlite3.connect": _database,
    "os.listdir": _listed,
    "os.scandir": _listed,
    "import": _imported,
    "cpython.run_file": _script,
    "cpython.run_module": _module,
    "subprocess.Popen": _started,
    "os.posix_spawn": _started,
    "os.exec": _started,
    "os.system": _system,
    "socket.getaddrinfo": _resolved,
    "socket.connect": _connected,
    "urllib.Request": _requested,
}


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    watching = _WATCHED.get(event)
    if watching is not None:
        with contextlib.suppress(Exception):  # whatever it is, the program goes on
            watching(*arguments)


def _give_way() -> None:
    """The user's own sitecustomize, which this file hides."""
    own = sys.modules.pop("sitecustomize", None)
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != _HERE]
    try:
        importlib.import_module("sitecustomize")
    except ImportError:
        if own is not None:
            sys.modules["sitecustomize"] = own


_give_way()
_notebook.write("python", f"{sys.version_info[0]}.{sys.version_info[1]}", sys.path)
sys.addaudithook(_watch)
