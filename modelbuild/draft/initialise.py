"""`modelbuild init`: find the training script of a folder and write a recipe for it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from modelbuild.draft.drafted import Draft, Surroundings
from modelbuild.draft.dvc import read_pipeline
from modelbuild.draft.evaluation import with_evaluation
from modelbuild.draft.from_dvc import draft_dvc
from modelbuild.draft.module_names import Installed
from modelbuild.draft.observe import observe
from modelbuild.draft.observed import draft_observed
from modelbuild.draft.packages import imported_packages, listed_packages, observed_packages
from modelbuild.draft.recipe import draft
from modelbuild.draft.script import is_program, parse
from modelbuild.draft.text import recipe_text
from modelbuild.errors import InvalidInputError, ModelbuildError, UsageError
from modelbuild.locking.requirements import requirements_of
from modelbuild.sources.workspace import LOCK_NAME, RECIPE_NAME, Workspace
from modelbuild.spec.recipe import Recipe
from modelbuild.spec.recipe_fields import NAME, printable
from modelbuild.spec.recipe_file import parse_recipe
from modelbuild.store.store import write_atomically

IGNORED = "result-*"
"""Links that `build` makes to outputs."""
ATTRIBUTES = f"{LOCK_NAME} text eol=lf diff merge linguist-generated=false"
"""The lock is for people to review: shown in diffs, also where other locks are hidden, and with
the same bytes on every system. Not merge=union: that would join two sides to a lock that neither
wrote. `modelbuild lock` resolves conflict markers."""
_MOST_FILES = 2000
_NOT_SEARCHED = frozenset({"__pycache__", "node_modules", "site-packages"})
_NOT_TRAINING = re.compile(r"test_.*|.*_test|conftest|setup|__init__")
_USUAL = (r"train", r"main", r"train.*", r".*_train", r"__main__", r"run")
"""Stems of a training script, the likeliest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InitRequest:
    folder: Path
    script: str | None = None
    """Relative to the folder; None: the one that there is."""
    command: tuple[str, ...] = ()
    """Run it in the folder, and write the recipe from what is seen of it."""
    source: Path | None = None
    """A dvc.yaml or a list of requirements to begin with."""
    name: str | None = None
    """None: that of the folder."""
    prefix: Path | None = None
    """The Python environment whose packages the script runs with today."""
    python: str = "3.11"
    """The version of Python where nothing in the folder says another."""
    threads: int = 1
    has_gpu: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class InitReport:
    recipe: Recipe
    path: Path
    script: str
    written: tuple[Path, ...]
    """What was written or added to, the recipe first."""
    notes: tuple[str, ...]
    """What is left for the author to do before it builds."""


def init(request: InitRequest) -> InitReport:
    """Write recipe.toml, and what git should know about links and lock.

    Raises ModelbuildError where there is a recipe already, UsageError where it can't be told
    which script is meant.
    """
    folder = request.folder.resolve()
    path = folder / RECIPE_NAME
    _check_folder(request.folder, path)
    if request.source is not None:
        _check_source(request.source, folder)
    workspace = Workspace.around(folder)
    files = dict(_python_files(folder))
    around = Surroundings(
        folder=folder,
        workspace=workspace.root,
        files=files,
        device="cuda" if request.has_gpu else "cpu",
        threads=request.threads,
    )
    drafted, text, recipe = _drafted(request, around, workspace)
    told = _tell_git(workspace.root)
    # Last: where something fails before, there is no recipe, and `init` can be run again.
    write_atomically(path, text.encode())
    return InitReport(
        recipe=recipe,
        path=path,
        script=drafted.script.path,
        written=(path, *told),
        notes=drafted.notes,
    )


def _drafted(
    request: InitRequest, around: Surroundings, workspace: Workspace
) -> tuple[Draft, str, Recipe]:
    """The draft, and the recipe as text and as what that says."""
    folder = around.folder
    if request.command:
        seen = observe(request.command, folder, workspace.root)
        # Read again: what the command wrote may be code that it ran.
        around = replace(around, files=dict(_python_files(folder)))
        drafted = draft_observed(request.command, seen, around)
        packages = observed_packages(drafted, folder, seen)
        text = recipe_text(_name(request, folder), drafted, packages)
        place = workspace.relative(folder) / RECIPE_NAME
        return drafted, text, parse_recipe(text.encode(), place)
    if request.source is not None and is_pipeline(request.source):
        drafted = draft_dvc(read_pipeline(request.source), request.source, around)
    else:
        drafted = draft(_chosen_script(request, folder, around.files), around)
        if request.script is None:
            with_evaluation(drafted, around)
    return drafted, *_recipe(drafted, request, workspace)


def is_pipeline(source: Path) -> bool:
    return source.suffix in (".yaml", ".yml")


def _check_source(source: Path, folder: Path) -> None:
    if not source.is_file():
        raise UsageError(f"--from {source}: there is no such file")
    if not is_pipeline(source) and source.suffix not in (".txt", ".in"):
        raise UsageError(
            f"--from {source}: it is not known how to begin with this",
            facts=[("wanted", "dvc.yaml, or requirements.txt")],
        )
    if is_pipeline(source) and source.parent.resolve() != folder.resolve():
        raise UsageError(
            f"--from {source}: the recipe of a dvc.yaml lies beside it",
            hint=f"modelbuild init {source.parent} --from {source}",
        )


def _check_folder(folder: Path, recipe: Path) -> None:
    if folder.is_file():
        raise UsageError(
            f"{folder} is not a folder",
            hint=f"modelbuild init {folder.parent} --script {folder.name}",
        )
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    if os.path.lexists(recipe):
        raise ModelbuildError(
            f"there is a recipe already: {folder / RECIPE_NAME}",
            hint=f"To build it: modelbuild build {folder / RECIPE_NAME}",
        )


# -- the script -----------------------------------------------------------------------------------


def _python_files(folder: Path) -> Iterator[tuple[str, bytes]]:
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


def _chosen_script(request: InitRequest, folder: Path, files: Mapping[str, bytes]) -> str:
    if request.script is not None:
        return _named_script(request.script, folder, files)
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
    raise _undecided(request.folder, programs)


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


# -- the recipe -----------------------------------------------------------------------------------


def _recipe(drafted: Draft, request: InitRequest, workspace: Workspace) -> tuple[str, Recipe]:
    """The text, and what it says; a list of packages that can't be used is not named."""
    folder = request.folder.resolve()
    name, place = _name(request, folder), workspace.relative(folder) / RECIPE_NAME
    installed = Installed.below(request.prefix) if request.prefix else Installed()
    imported = imported_packages(drafted, folder, installed, request.python)
    own = request.source if request.source and request.source.suffix == ".txt" else None
    listed = listed_packages(folder, imported, own)
    if listed:
        text = recipe_text(name, drafted, listed)
        recipe = parse_recipe(text.encode(), place)
        try:
            requirements_of(recipe, workspace.root)
        except InvalidInputError as error:
            if own:
                raise
            reason = f"{listed.values[0]} can't be used: {error.summary}"
            imported = replace(imported, comment=f"{imported.comment} {reason}")
        else:
            return text, recipe
    text = recipe_text(name, drafted, imported)
    return text, parse_recipe(text.encode(), place)


def _name(request: InitRequest, folder: Path) -> str:
    if request.name is not None:
        if not NAME.fullmatch(request.name):
            raise UsageError(
                f"--name {printable(request.name)}: a recipe can't have this name",
                facts=[("wanted", "letters, digits, '_', '.' and '-', at most 80")],
            )
        return request.name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.name)[:80].strip("-._") or "model"


# -- git ------------------------------------------------------------------------------------------


def _tell_git(root: Path) -> list[Path]:
    """The files beside the lock to which a line was added."""
    wanted = ((".gitignore", IGNORED, _ignores), (".gitattributes", ATTRIBUTES, _has_attributes))
    changed = []
    for name, line, is_there in wanted:
        path = (root / name).resolve()
        text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
        if not any(is_there(known) for known in text.splitlines()):
            before = f"{text}\n" if text and not text.endswith("\n") else text
            write_atomically(path, f"{before}{line}\n".encode(errors="surrogateescape"))
            changed.append(root / name)
    return changed


def _ignores(line: str) -> bool:
    return line.strip().lstrip("/") in (IGNORED, "result*")


def _has_attributes(line: str) -> bool:
    return line.split()[:1] == [LOCK_NAME]
