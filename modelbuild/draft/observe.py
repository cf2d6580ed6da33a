"""Run a training command once, as it is, and see what it reads, writes and imports.

Two sources, since neither sees all: Python's audit events, from every Python process of the
command (draft/watch), and the files that are new or changed afterwards, whoever wrote them.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelbuild.draft.opened_files import OpenedFiles
from modelbuild.errors import CommandFailedError, UsageError

_NOT_LOOKED_AT = frozenset({"__pycache__", "node_modules", "site-packages"})
_WATCH = Path(__file__).parent / "watch" / "sitecustomize.py"


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """Paths are absolute."""

    python: str
    """`3.11`; empty where no Python process was seen."""
    search: tuple[str, ...]
    """Of `sys.path`: where its packages are."""
    scripts: tuple[Path, ...]
    """That Python ran, the first one first."""
    modules: frozenset[str]
    """By full name, also those that it tried to import."""
    read: frozenset[Path]
    """Files that are still there, and were there before; also those that only were listed."""
    listed: frozenset[Path]
    """Folders whose names were read."""
    written: frozenset[Path]
    """Files that are new or changed."""
    programs: tuple[str, ...]
    """Other programs than Python that were started."""
    urls: tuple[str, ...]
    hosts: tuple[str, ...]
    """That were connected to, without this machine."""
    folders: frozenset[Path] = frozenset()
    """Of the workspace, that were there before."""


def observe(command: Sequence[str], folder: Path, workspace: Path) -> Observation:
    """Run the command in `folder`; what it prints goes to stderr.

    What it writes is left where it is. Raises CommandFailedError where it does not end with 0.
    """
    import subprocess

    places = [workspace, *_places_outside(command, folder, workspace)]
    folders = frozenset(Path(folder) for folder, _ in _walk(workspace))
    before = {path: state for place in places for path, state in _files(place)}
    with tempfile.TemporaryDirectory(prefix="modelbuild-") as temporary:
        watch = Path(temporary).resolve()
        shutil.copy(_WATCH, watch / "sitecustomize.py")
        search = [str(watch), *filter(None, [os.environ.get("PYTHONPATH")])]
        with OpenedFiles(workspace) as opened:
            try:
                done = subprocess.run(
                    list(command),
                    cwd=folder,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
                    stdout=sys.stderr.fileno(),
                    check=False,
                )
            except (FileNotFoundError, PermissionError) as error:
                raise UsageError(
                    f"{command[0]} can't be run: {error.strerror}",
                    hint="Give the command as in a shell: modelbuild init -- python train.py",
                ) from None
        if done.returncode:
            code = done.returncode if done.returncode > 0 else 128 - done.returncode
            raise CommandFailedError(f"{shlex.join(command)} ended with exit code {code}", code)
        events = list(_events(watch))
    after = {path: state for place in places for path, state in _files(place)}
    return replace(_observation(events, opened.paths, before, after), folders=folders)


def _places_outside(command: Sequence[str], folder: Path, workspace: Path) -> Iterator[Path]:
    """Folders outside of the workspace that the command line names."""
    for word in command[1:]:
        for text in {word, word.partition("=")[2]}:
            if "/" in text and "://" not in text:
                path = Path(os.path.abspath(folder / text))
                holds = workspace.is_relative_to(path)
                if not holds and not path.is_relative_to(workspace) and len(path.parts) > 2:
                    yield path


def _files(place: Path) -> Iterator[tuple[Path, tuple[int, int, int]]]:
    """What would differ if it had been written; nothing hidden."""
    if place.is_file():
        yield place, _state(place.stat())
    for folder, names in _walk(place):
        for name in names:
            path = Path(folder, name)
            if not name.startswith("."):
                try:
                    yield path, _state(path.stat())
                except OSError:  # gone, or a link to nowhere
                    continue


def _walk(place: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders, and the names of the files in each."""
    for folder, folders, names in os.walk(place):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in _NOT_LOOKED_AT
            and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
        ]
        yield folder, names


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _events(watch: Path) -> Iterator[list[object]]:
    """Of all processes, those of the one that began first come first."""
    for file in sorted(watch.glob("*.jsonl")):  # named by time
        for line in file.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            try:
                yield json.loads(line)
            except ValueError:  # a process was killed while it wrote
                continue


def _observation(
    events: Sequence[Sequence[object]],
    opened: frozenset[Path],
    before: Mapping[Path, tuple[int, int, int]],
    after: Mapping[Path, tuple[int, int, int]],
) -> Observation:
    def seen(kind: str) -> list[str]:
        return list(dict.fromkeys(str(event[1]) for event in events if event[0] == kind))

    printed = {os.fstat(stream).st_ino for stream in (1, 2)}  # where our own output goes
    changed = {
        path
        for path, state in after.items()
        if before.get(path) != state and state[2] not in printed
    }
    outside = {path for path in map(Path, seen("write")) if path not in after and path.is_file()}
    read = {_source(path) for path in {*map(Path, seen("read")), *opened} if path.is_file()}
    started = [event[1] for event in events if event[0] == "start"]
    pythons = [event for event in events if event[0] == "python"]
    search = [path for event in pythons for path in _texts(event[2])]
    return Observation(
        python=str(pythons[0][1]) if pythons else "",
        search=tuple(dict.fromkeys(search)),
        scripts=tuple(map(Path, seen("script"))),
        modules=frozenset(seen("import")) | frozenset(seen("module")),
        read=frozenset(read - changed - outside),
        listed=frozenset(map(Path, seen("list"))),
        written=frozenset(changed | outside),
        programs=tuple(dict.fromkeys(_program(_texts(words)) for words in started)),
        urls=tuple(seen("url")),
        hosts=tuple(host for host in [*seen("host"), *seen("connect")] if not _is_here(host)),
    )


def _source(path: Path) -> Path:
    """Of a compiled module: a second run reads no other file of it."""
    if path.suffix == ".pyc" and path.parent.name == "__pycache__":
        source = path.parent.parent / f"{path.name.partition('.')[0]}.py"
        return source if source.is_file() else path
    return path


def _texts(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _program(words: Sequence[str]) -> str:
    return os.path.basename(words[0]) if words else ""


def _is_here(host: str) -> bool:
    import socket

    return host in ("localhost", "::1", "0.0.0.0", "::", socket.gethostname()) or (  # noqa: S104
        host.startswith("127.")
    )
