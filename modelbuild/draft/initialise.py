"""`modelbuild init`: find the training script of a folder and write a recipe for it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from modelbuild.draft.drafted import Draft, Surroundings
from modelbuild.draft.dvc import read_pipeline
from modelbuild.draft.evaluation import with_evaluation
from modelbuild.draft.from_dvc import draft_dvc
from modelbuild.draft.module_names import Installed
from modelbuild.draft.observe import observe
from modelbuild.draft.observed import draft_observed
from modelbuild.draft.packages import imported_packages, listed_packages, observed_packages
from modelbuild.draft.recipe import draft
from modelbuild.draft.text import recipe_text
from modelbuild.draft.training_script import chosen_script, python_files
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
    files = dict(python_files(folder))
    around = Surroundings(
        folder=folder,
        workspace=workspace.root,
        files=files,
        device="cuda" if request.has_gpu else "cpu",
        threads=request.threads,
        installed=Installed.below(request.prefix) if request.prefix else Installed(),
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
        installed = Installed.on(seen.search)
        around = replace(around, files=dict(python_files(folder)), installed=installed)
        drafted = draft_observed(request.command, seen, around)
        packages = observed_packages(drafted, folder, seen, installed)
        text = recipe_text(_name(request, folder), drafted, packages)
        place = workspace.relative(folder) / RECIPE_NAME
        return drafted, text, parse_recipe(text.encode(), place)
    if request.source is not None and is_pipeline(request.source):
        drafted = draft_dvc(read_pipeline(request.source, folder), request.source, around)
    else:
        drafted = draft(chosen_script(request.script, folder, around.files, request.folder), around)
        if request.script is None:
            with_evaluation(drafted, around)
    return drafted, *_recipe(drafted, request, workspace, around.installed)


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
    if is_pipeline(source) and not source.parent.resolve().is_relative_to(folder):
        raise UsageError(
            f"--from {source}: the recipe of a dvc.yaml lies beside it, or above",
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


# -- the recipe -----------------------------------------------------------------------------------


def _recipe(
    drafted: Draft, request: InitRequest, workspace: Workspace, installed: Installed
) -> tuple[str, Recipe]:
    """The text, and what it says; a list of packages that can't be used is not named."""
    folder = request.folder.resolve()
    name, place = _name(request, folder), workspace.relative(folder) / RECIPE_NAME
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
