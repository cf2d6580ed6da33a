"""What the commands' parsers share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NoReturn

from modelbuild.build.outputs import Lookup
from modelbuild.errors import UsageError
from modelbuild.sources.locations import read_locations
from modelbuild.sources.workspace import Workspace
from modelbuild.store.store import Store


class Parser(argparse.ArgumentParser):
    """Says what is wrong as every other error is said, with exit code 2."""

    def __init__(self, command: str, description: str, example: str) -> None:
        super().__init__(
            prog=f"modelbuild {command}",
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", hint=f"{self.prog} --help explains it.")


def unknown_command(word: str, commands: Iterable[str]) -> UsageError:
    from difflib import get_close_matches

    near = get_close_matches(word, list(commands), n=1)
    hint = f"Did you mean: modelbuild {near[0]}" if near else "modelbuild --help lists them."
    return UsageError(f"there is no command '{word}'", hint=hint)


def workspace_of(recipe: Path | None) -> Workspace:
    """The workspace of a recipe file or folder, else of the current folder."""
    return Workspace.around(Path.cwd()) if recipe is None else Workspace.around_recipe(recipe)


def recipe_path(text: str, workspace: Workspace) -> PurePosixPath:
    """A recipe given as file, as folder or by its name in the lock, relative to the workspace."""
    path = Path(text)
    if path.exists():
        return workspace.relative(path)
    from modelbuild.sources.lock_on_disk import read_lock

    known = read_lock(workspace).recipes
    if text not in known:
        raise UsageError(
            f"there is no recipe '{text}'",
            facts=[("wanted", "a recipe file, a folder with recipe.toml, or a locked name")],
            hint=f"Locked here: {', '.join(sorted(known)) or 'nothing'}",
        )
    return known[text].path


def lookup(target: str) -> Lookup:
    """`RECIPE[:STAGE]`, as a command line names a stage."""
    text, _, stage = target.partition(":")
    named = Path(text)
    workspace = workspace_of(named if named.exists() else None)
    return Lookup(
        workspace=workspace,
        store=Store.open(),
        recipe=recipe_path(text, workspace),
        stage=stage or None,
        locations=read_locations(os.environ),
    )
