"""The workspace: the folder that holds model.lock, and the recipes below it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modelbuild.errors import InvalidInputError, UsageError
from modelbuild.spec.lock import Lock
from modelbuild.spec.recipe import Recipe, RecipeData
from modelbuild.spec.recipe_file import parse_recipe

LOCK_NAME = "model.lock"
RECIPE_NAME = "recipe.toml"
_NOT_SEARCHED = frozenset({"node_modules", "__pycache__", "site-packages"})


@dataclass(frozen=True, slots=True)
class Workspace:
    """`root` is absolute and free of links."""

    root: Path

    @classmethod
    def around(cls, start: Path) -> Workspace:
        """The nearest ancestor of `start` with a lock, else with a git repository, else `start`.

        `start` is a folder.
        """
        start = start.resolve()
        for name in (LOCK_NAME, ".git"):
            for folder in (start, *start.parents):
                if (folder / name).exists():
                    return cls(folder)
        return cls(start)

    @classmethod
    def around_recipe(cls, recipe: Path) -> Workspace:
        """The workspace of a recipe file, or of a folder that holds one."""
        if not recipe.exists() or (recipe.is_dir() and not (recipe / RECIPE_NAME).exists()):
            raise no_recipe(f"there is no recipe at {recipe}", recipe)
        return cls.around(recipe if recipe.is_dir() else recipe.parent)

    @property
    def lock_path(self) -> Path:
        return self.root / LOCK_NAME

    def lock_bytes(self) -> bytes:
        """Empty where there is no lock yet."""
        try:
            return self.lock_path.read_bytes()
        except FileNotFoundError:
            return b""

    def relative(self, path: Path) -> PurePosixPath:
        """A path below the workspace, relative to it."""
        resolved = path.resolve()
        try:
            return PurePosixPath(resolved.relative_to(self.root).as_posix())
        except ValueError:
            raise UsageError(
                f"{path} is not in the workspace", facts=[("workspace", str(self.root))]
            ) from None

    def folder(self, recipe: Recipe) -> Path:
        return self.root / recipe.folder

    def read_recipe(self, path: PurePosixPath) -> Recipe:
        place = self.root / path
        if place.is_dir():
            return self.read_recipe(path / RECIPE_NAME)
        if place.exists() and not place.is_file():
            raise InvalidInputError(f"{path} is not a file")
        try:
            data = place.read_bytes()
        except FileNotFoundError:
            raise InvalidInputError(
                f"there is no recipe at {path}",
                facts=[("workspace", str(self.root))],
                hint="To write one for the scripts in a folder: modelbuild init FOLDER",
            ) from None
        return parse_recipe(data, path)

    def read_recipes(self, lock: Lock) -> dict[str, Recipe]:
        """Every recipe of the workspace by name: those in the lock and every recipe.toml."""
        return unique_by_name([self.read_recipe(path) for path in self.recipe_paths(lock)])

    def recipe_paths(self, lock: Lock) -> list[PurePosixPath]:
        """The recipe files that exist: those in the lock and every recipe.toml."""
        known = (recipe.path for recipe in lock.recipes.values())
        paths = {path for path in known if (self.root / path).exists()}
        return sorted(paths | set(self._search()))

    def with_upstream(self, recipes: Sequence[Recipe], lock: Lock) -> dict[str, Recipe]:
        """These recipes and all whose outputs they read, by name.

        A name that is nowhere is left out: deriving the stage that reads it says so.
        """
        found = unique_by_name(recipes)
        for recipe in recipes:
            self._check_name(recipe, lock)
        everything: dict[str, Recipe] | None = None
        waiting = list(found.values())
        while waiting:
            for data in waiting.pop().data.values():
                if not isinstance(data, RecipeData) or data.recipe in found:
                    continue
                known = lock.recipes.get(data.recipe)
                if known and (self.root / known.path).exists():
                    other: Recipe | None = self.read_recipe(known.path)
                else:
                    everything = everything or self.read_recipes(lock)
                    other = everything.get(data.recipe)
                if other and other.name not in found:
                    found[other.name] = other
                    waiting.append(other)
        return found

    def _check_name(self, recipe: Recipe, lock: Lock) -> None:
        """Raise InvalidInputError where a recipe elsewhere in the lock has the same name."""
        known = lock.recipes.get(recipe.name)
        if known and known.path != recipe.path and (self.root / known.path).is_file():
            unique_by_name([self.read_recipe(known.path), recipe])

    def _search(self) -> Iterator[PurePosixPath]:
        for folder, folders, files in os.walk(self.root):
            folders[:] = sorted(
                name
                for name in folders
                if not name.startswith(".")
                and name not in _NOT_SEARCHED
                and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
            )
            if RECIPE_NAME in files:
                yield PurePosixPath((Path(folder) / RECIPE_NAME).relative_to(self.root).as_posix())


def no_recipe(summary: str, wanted: Path) -> UsageError:
    """Names the nearest recipe in a folder above, if there is one."""
    folder = Path.cwd() if wanted.parent == Path() else wanted.resolve().parent
    for above in folder.parents:
        if (above / RECIPE_NAME).is_file():
            place = os.path.relpath(above / RECIPE_NAME)
            return UsageError(summary, hint=f"There is one in a folder above: {place}")
    return UsageError(
        summary, hint="To write one for the scripts in a folder: modelbuild init FOLDER"
    )


def unique_by_name(recipes: Sequence[Recipe]) -> dict[str, Recipe]:
    """By name. Raises InvalidInputError for two recipes of one name."""
    found: dict[str, Recipe] = {}
    for recipe in recipes:
        other = found.setdefault(recipe.name, recipe)
        if other.path != recipe.path:
            raise InvalidInputError(
                f"two recipes have the name '{recipe.name}'",
                facts=[
                    ("first", other.where("model.name")),
                    ("second", recipe.where("model.name")),
                ],
                hint="Give one of them another [model] name.",
            )
    return found
