"""Build a trained model again, bit for bit.

The front door of the library; the command line calls what these functions call. Paths are those of
recipe files or of folders with a recipe.toml; the workspace is the one around the recipe.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

# The functions below have the names of these packages. Importing a package later would put it
# into the function's place.
import modelbuild.build
import modelbuild.verify  # noqa: F401

if TYPE_CHECKING:
    from pathlib import Path

    from modelbuild.build.request import BuildResult, Observer
    from modelbuild.locking.front import LockReport
    from modelbuild.verify.compare_recipes import CompareReport
    from modelbuild.verify.verdict import VerifyReport

__all__ = ["build", "compare", "lock", "verify"]


def lock(
    *recipes: str | Path,
    folder: str | Path = ".",
    update: Collection[str] | None = None,
    check: bool = False,
    store: str | Path | None = None,
    observer: Observer | None = None,
) -> LockReport:
    """Pin every input of the recipes in model.lock.

    Without recipes: all of the workspace around `folder`. `update` names what may move, empty
    for everything. With `check` nothing is written, and OutOfDateError says what is stale.
    """
    from pathlib import Path

    from modelbuild.build.request import Silent
    from modelbuild.locking.front import lock as lock_workspace
    from modelbuild.locking.request import LockRequest
    from modelbuild.sources.locations import read_locations
    from modelbuild.sources.workspace import Workspace
    from modelbuild.store.store import Store

    paths = [Path(recipe) for recipe in recipes]
    workspace = Workspace.around_recipe(paths[0]) if paths else Workspace.around(Path(folder))
    request = LockRequest(
        workspace=workspace,
        store=Store.open(Path(store) if store else None),
        update=None if update is None else frozenset(update),
        check=check,
        recheck=not check,
        locations=read_locations(os.environ),
        on_message=(observer or Silent()).message,
    )
    return lock_workspace([workspace.relative(path) for path in paths], request)


def build(
    recipe: str | Path,
    *,
    locked: bool = False,
    dry_run: bool = False,
    keep_failed: bool = False,
    claim: bool = False,
    settings: Sequence[str] = (),
    isolation: str = "full",
    paranoid: bool = False,
    store: str | Path | None = None,
    observer: Observer | None = None,
) -> BuildResult:
    """Build every stage of a recipe that is not built yet; the arguments are `build`'s options.

    Raises the errors of modelbuild.errors: StageFailedError, NotReproducibleError, ...
    """
    from pathlib import Path

    from modelbuild.build.build import build as build_recipe
    from modelbuild.build.request import BuildRequest, Silent
    from modelbuild.errors import UsageError
    from modelbuild.sandbox.isolation import Isolation
    from modelbuild.sources.locations import read_locations
    from modelbuild.sources.workspace import Workspace
    from modelbuild.store.store import Store

    if isolation not in list(Isolation):
        raise UsageError(
            f"there is no isolation '{isolation}'", facts=[("wanted", ", ".join(Isolation))]
        )
    workspace = Workspace.around_recipe(Path(recipe))
    return build_recipe(
        BuildRequest(
            workspace=workspace,
            store=Store.open(Path(store) if store else None),
            recipe=workspace.relative(Path(recipe)),
            isolation=Isolation(isolation),
            locked=locked,
            dry_run=dry_run,
            keep_failed=keep_failed,
            claim=claim,
            settings=settings,
            paranoid=paranoid,
            locations=read_locations(os.environ),
            observer=observer or Silent(),
        )
    )


def verify(
    *recipes: str | Path,
    folder: str | Path = ".",
    rebuild: bool = False,
    seeds: int | None = None,
    paranoid: bool = False,
    store: str | Path | None = None,
    observer: Observer | None = None,
) -> VerifyReport:
    """Check the lock's claims; with `rebuild`, build again from scratch and compare bits.

    With `seeds`, build that many seeds, and keep the spread of every metric in the lock.
    Without recipes: all that is locked in the workspace around `folder`. What does not hold is
    in the report's `problems`, it is not raised.
    """
    from pathlib import Path

    from modelbuild.build.request import Silent
    from modelbuild.sources.locations import read_locations
    from modelbuild.sources.workspace import Workspace
    from modelbuild.store.store import Store
    from modelbuild.verify.verify import VerifyRequest
    from modelbuild.verify.verify import verify as verify_workspace

    paths = [Path(recipe) for recipe in recipes]
    workspace = Workspace.around_recipe(paths[0]) if paths else Workspace.around(Path(folder))
    return verify_workspace(
        VerifyRequest(
            workspace=workspace,
            store=Store.open(Path(store) if store else None),
            recipes=[workspace.relative(path) for path in paths],
            rebuild=rebuild,
            seeds=seeds,
            paranoid=paranoid,
            locations=read_locations(os.environ),
            observer=observer or Silent(),
        )
    )


def compare(
    first: str | Path,
    second: str | Path | None = None,
    *,
    settings: Sequence[str] = (),
    seeds: int | None = None,
    metrics: Collection[str] = (),
    store: str | Path | None = None,
    observer: Observer | None = None,
) -> CompareReport:
    """Compare the metrics of two recipes of a workspace, with `seeds` on the same seeds.

    `settings` are of the second recipe; without one, of the first: an experiment with it.
    Seeds that fail are in the report's `problems`; what fails with every seed is raised.
    """
    from pathlib import Path

    from modelbuild.build.request import Silent
    from modelbuild.sources.locations import read_locations
    from modelbuild.sources.workspace import Workspace
    from modelbuild.store.store import Store
    from modelbuild.verify.compare_recipes import CompareRequest
    from modelbuild.verify.compare_recipes import compare as compare_recipes

    workspace = Workspace.around_recipe(Path(first))
    return compare_recipes(
        CompareRequest(
            workspace=workspace,
            store=Store.open(Path(store) if store else None),
            first=workspace.relative(Path(first)),
            second=workspace.relative(Path(first if second is None else second)),
            settings=tuple(settings),
            seeds=seeds,
            metrics=metrics,
            locations=read_locations(os.environ),
            observer=observer or Silent(),
        )
    )
