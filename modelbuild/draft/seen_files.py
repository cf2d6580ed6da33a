"""What an observed command read and wrote, sorted: code, configuration, data, output."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modelbuild.draft.files import Files
from modelbuild.draft.observe import Observation
from modelbuild.sources.workspace import LOCK_NAME, RECIPE_NAME

_SOURCE = frozenset({".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".py", ".pyx", ".sh", ".so"})
_SYSTEM = ("/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr")
_OF_LIBRARIES = re.compile(
    r"\.(cache|config|local/share)/(fontconfig|matplotlib|mesa_\w+|nv|pip|uv|torch/kernels)(/|$)"
    r"|\.(nv|triton)/"
)
"""In the user's home: caches that a library makes again."""
_FEW = 3
"""More files of one folder are told as the folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenFiles:
    """Paths are relative to the recipe's folder; what lies elsewhere begins with `..`."""

    code: frozenset[str]
    configuration: frozenset[str]
    data: frozenset[str]
    """Files of the workspace that were read."""
    outside: frozenset[str]
    """Files outside of the workspace that were read, without those of the system and packages."""
    written: frozenset[str]
    folders: frozenset[str]
    """Of the workspace, that were there before."""


def sort_files(seen: Observation, files: Files) -> SeenFiles:
    inside: set[str] = set()
    outside: set[str] = set()
    for path in seen.read:
        if path.is_relative_to(files.workspace):
            if _is_plain(path.relative_to(files.workspace)):
                inside.add(_relative(path, files))
        elif not _is_of_the_system(path, seen.search):
            outside.add(_relative(path, files))
    of_scripts = {_relative(path, files) for path in seen.scripts if path.is_file()}
    code = {p for p in {*inside, *of_scripts} if PurePosixPath(p).suffix in _SOURCE}
    rest = {p for p in inside - code if not files.is_of_tools(p)}
    configuration = {path for path in rest if files.is_configuration(path)}
    written = {
        _relative(path, files)
        for path in seen.written
        if not path.is_relative_to(files.workspace) or _is_plain(path.relative_to(files.workspace))
    }
    return SeenFiles(
        code=frozenset(code),
        configuration=frozenset(configuration),
        data=frozenset(rest - configuration),
        outside=frozenset(outside),
        written=frozenset(path for path in written if not path.endswith(".pyc")),
        folders=frozenset(_relative(path, files) for path in seen.folders),
    )


def _relative(path: Path, files: Files) -> str:
    return os.path.relpath(path, files.folder)


def _is_plain(path: Path) -> bool:
    """Neither hidden nor made by Python, nor ours."""
    named = not {"__pycache__", "site-packages", "node_modules"} & {*path.parts}
    hidden = any(part.startswith(".") for part in path.parts)
    return named and not hidden and path.name not in (LOCK_NAME, RECIPE_NAME)


def _is_of_the_system(path: Path, search: Iterable[str]) -> bool:
    packages = [place for place in search if place and place != os.sep]
    if any(path.is_relative_to(place) for place in (*_SYSTEM, *packages)):
        return True
    if any(path.is_relative_to(_prefix(Path(place))) for place in packages):
        return True
    home = Path.home()
    return path.is_relative_to(home) and bool(_OF_LIBRARIES.match(str(path.relative_to(home))))


def _prefix(place: Path) -> Path:
    """`/venv` of `/venv/lib/python3.11/site-packages`; else the place itself."""
    for parent in place.parents:
        if parent.name in ("lib", "lib64") and len(parent.parents) > 1:
            return parent.parent
    return place


def is_temporary(path: str, files: Files) -> bool:
    return (files.folder / path).resolve().is_relative_to(Path(tempfile.gettempdir()).resolve())


def is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/") or (folder == "." and path[:2] != "..")


def covered(path: str, paths: Iterable[str]) -> bool:
    """Whether `path` is one of them, or a folder around one."""
    return any(is_below(each, path) for each in paths)


def in_folders(paths: Collection[str], listed: Collection[str], code: Collection[str]) -> list[str]:
    """The paths; those of a folder that was listed, or that gives many, as that folder."""
    chosen: set[str] = set()
    for path in sorted(paths):
        folder = os.path.dirname(path)
        siblings = [each for each in paths if os.path.dirname(each) == folder]
        place = path
        if folder and (folder in listed or len(siblings) > _FEW) and not covered(folder, code):
            place = folder
            for above in _above(folder):
                if above in listed and not covered(above, code):
                    place = above
        chosen.add(place)
    return sorted(p for p in chosen if not any(is_below(p, o) for o in chosen - {p}))


def _above(folder: str) -> Iterator[str]:
    while folder := os.path.dirname(folder):
        if os.path.basename(folder) == "..":
            return
        yield folder


def kept(written: Iterable[str], read: Collection[str]) -> list[str]:
    """What to copy to keep the written files: whole folders, numbered files as one pattern."""
    from fnmatch import fnmatch

    found: set[str] = set()
    for path in written:
        folders = [str(each) for each in PurePosixPath(path).parents][:-1]
        own = [each for each in folders if not covered(each, read)]
        pattern = re.sub(r"\d+", "*", os.path.basename(path))
        if own:
            found.add(own[-1])
        elif "*" in pattern and not any(fnmatch(os.path.basename(each), pattern) for each in read):
            found.add(os.path.join(os.path.dirname(path), pattern))
        else:
            found.add(path)
    return sorted(found)
