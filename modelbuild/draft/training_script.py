"""Which of a folder's Python files is the training script."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from modelbuild.draft.script import is_program, parse
from modelbuild.errors import ModelbuildError, UsageError

_MOST_FILES = 2000
_NOT_SEARCHED = frozenset({"__pycache__", "node_modules", "site-packages"})
_NOT_TRAINING = re.compile(r"test_.*|.*_test|conftest|setup|__init__")
_USUAL = (r"train", r"main", r"train.*", r".*_train", r"__main__", r"run")
"""Stems of a training script, the likeliest first."""


def python_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every Python file below the folder that can be code of a recipe."""
    count = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _NOT_SEARCHED
            and not os.path.exists(os.path.join(place, name, "pyvenv.cfg"))
        )
        for name in sorted(names):
            path = Path(place, name)
            if name.endswith(".py") and not name.startswith(".") and path.is_file():
                count += 1
                if count > _MOST_FILES:
                    raise ModelbuildError(
                        f"{folder} has more than {_MOST_FILES} Python files",
                        hint="Name a folder with one training script: modelbuild init FOLDER",
                    )
                yield path.relative_to(folder).as_posix(), path.read_bytes()


def chosen_script(named: str | None, folder: Path, files: Mapping[str, bytes], called: Path) -> str:
    """The one that is named (relative to the folder), else that which looks most like training.

    Raises UsageError where that can't be told; `called` is the folder in the user's words.
    """
    if named is not None:
        return _named_script(named, folder, files)
    programs = [path for path in files if _can_be_training(path, files[path])]
    if not programs:
        programs = [path for path in files if not _NOT_TRAINING.fullmatch(PurePosixPath(path).stem)]
    highest = min((path.count("/") for path in programs), default=0)
    programs = [path for path in programs if path.count("/") == highest]
    for stem in _USUAL:
        usual = [path for path in programs if re.fullmatch(stem, PurePosixPath(path).stem)]
        if len(usual) == 1:
            return usual[0]
        if usual:
            programs = usual
            break
    if len(programs) == 1:
        return programs[0]
    raise _undecided(called, programs)


def _undecided(folder: Path, programs: list[str]) -> UsageError:
    if not programs:
        return UsageError(
            f"there is no Python script in {folder}",
            hint="Name the folder with the training script: modelbuild init FOLDER",
        )
    return UsageError(
        f"several scripts in {folder} can be the training script",
        facts=[("found", ", ".join(programs))],
        hint=f"Choose one: modelbuild init {folder} --script {programs[0]}",
    )


def _can_be_training(path: str, content: bytes) -> bool:
    """A broken file beside the script does not matter."""
    if _NOT_TRAINING.fullmatch(PurePosixPath(path).stem):
        return False
    try:
        return is_program(parse(path, content))
    except ModelbuildError:
        return False


def _named_script(text: str, folder: Path, files: Mapping[str, bytes]) -> str:
    """As seen from the folder, else from where the command was given."""
    for base in (folder, Path.cwd()):
        path = (base / text).resolve()
        if path.is_relative_to(folder) and path.relative_to(folder).as_posix() in files:
            return path.relative_to(folder).as_posix()
    from difflib import get_close_matches

    near = get_close_matches(text, list(files), n=1)
    raise UsageError(
        f"--script {text}: there is no such Python file in {folder}",
        hint=f"Did you mean: --script {near[0]}" if near else None,
    )
