"""Pin the inputs of one recipe: environment, code, data."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from modelbuild.errors import (
    DigestMismatchError,
    InvalidInputError,
    ModelbuildError,
    OutOfDateError,
    UnavailableError,
)
from modelbuild.locking.code import recipe_code, stage_code
from modelbuild.locking.request import LockRequest, out_of_date
from modelbuild.sources.data import Resolved, realise, resolve
from modelbuild.sources.source import SourceAbsentError, SourceContext
from modelbuild.sources.workspace import Workspace
from modelbuild.spec.lock import LockedData, LockedEnvironment, LockedFile, LockedRecipe
from modelbuild.spec.recipe import PackageData, Recipe, RecipeData, Stage, declaration
from modelbuild.store.stat_cache import StatCache

if TYPE_CHECKING:
    from pathlib import Path

    from modelbuild.environment.interpreter import HostPython


def lock_environment(
    recipe: Recipe,
    before: LockedRecipe | None,
    environments: Mapping[str, LockedEnvironment],
    request: LockRequest,
) -> tuple[tuple[str, ...], LockedEnvironment]:
    """The requirements and what they resolve to; the locked environment while it still fits."""
    from modelbuild.locking.requirements import requirements_of

    requires = requirements_of(recipe, request.workspace.root)
    previous = environments.get(before.environment) if before else None
    if before and previous and still_fits(recipe, requires, before, previous):
        update = _package_updates(previous, request)
        if update is None:
            if request.recheck:
                _recheck(recipe, requires, previous, request)
            return requires, _update_python(previous, request)
    else:
        update = None
    if request.check:
        raise out_of_date([(recipe.name, "packages" if before else "not locked yet")])
    from modelbuild.environment.indexes import narrowing_settings

    for setting in narrowing_settings():
        request.on_message(f"{recipe.name}: resolving with {setting}")
    return requires, _resolve(recipe, requires, previous, update, request)


def still_fits(
    recipe: Recipe, requires: tuple[str, ...], before: LockedRecipe, previous: LockedEnvironment
) -> bool:
    """Whether the locked environment is one of what the recipe asks for now."""
    wanted = recipe.environment
    from_source = {wheel.name for wheel in previous.wheels if wheel.from_source}
    return (
        before.requires == requires
        and from_source == {w.name for w in previous.wheels if w.name in wanted.from_source}
        and before.resolver == wanted.resolver
        and before.exclude_newer == wanted.exclude_newer
        and before.hardware.get("device") == recipe.hardware.device.value
        and previous.platform == wanted.platform
        and previous.base == wanted.base
        and f"{previous.python}.".startswith(f"{wanted.python}.")
    )


def _package_updates(previous: LockedEnvironment, request: LockRequest) -> frozenset[str] | None:
    """Names to move, empty for all, None for none."""
    if request.update is None:
        return None
    if not request.update:
        return frozenset()
    if "base" in request.update:
        return frozenset([*(each.name for each in previous.distributions), *request.update])
    return previous.packages.intersection(request.update) or None


def _update_python(previous: LockedEnvironment, request: LockRequest) -> LockedEnvironment:
    """Accept the build of the locked version that is on this machine.

    That is what `--update python` asks for. It is also done where no build is accepted yet,
    because the lock was made on a machine that can't run the target.
    """
    asked = request.updates("python")
    if not asked and (previous.interpreters or request.check):
        return previous
    if not _host_runs(previous.platform):
        return previous
    found = _python_of(previous.python, previous.base, request)
    accepted = tuple(sorted({*previous.interpreters, found.digest}))
    return replace(previous, interpreters=accepted)


def _python_of(wanted: str, base: str, request: LockRequest) -> HostPython:
    from modelbuild.environment.base import find_base
    from modelbuild.environment.interpreter import ask_python, find_python

    if base == "host":
        return find_python(wanted)
    return ask_python(find_base(wanted, request.locations).python)


def _host_runs(target: str) -> bool:
    """Whether interpreters of this machine are interpreters of the target platform."""
    import platform
    import sys

    return sys.platform == "linux" and target.startswith(f"{platform.machine()}-manylinux")


def _recheck(
    recipe: Recipe,
    requires: tuple[str, ...],
    previous: LockedEnvironment,
    request: LockRequest,
) -> None:
    """Ask the index whether the locked files are still what they were.

    Raises DigestMismatchError where one has other bytes under the same name now.
    """
    try:
        _resolve(recipe, requires, previous, None, request)
    except DigestMismatchError:
        raise
    except ModelbuildError as error:
        request.on_message(
            f"{recipe.name}: packages stay as locked, not looked up: {error.summary}"
        )


def _resolve(
    recipe: Recipe,
    requires: tuple[str, ...],
    previous: LockedEnvironment | None,
    update: frozenset[str] | None,
    request: LockRequest,
) -> LockedEnvironment:
    from modelbuild.environment.base import find_base
    from modelbuild.locking.base import LockableBase
    from modelbuild.locking.resolve import resolve_environment

    wanted = recipe.environment.python
    keep_python = previous is not None and f"{previous.python}.".startswith(f"{wanted}.")
    if previous and keep_python and not request.updates("python"):
        version, interpreters = previous.python, previous.interpreters
    else:
        found = _python_of(wanted, recipe.environment.base, request)
        version = found.version
        interpreters = (found.digest,) if _host_runs(recipe.environment.platform) else ()
    base = None
    if recipe.environment.base == "interpreter":
        found_base = find_base(version, request.locations)
        where = recipe.where("environment")
        base = LockableBase(interpreter=found_base, where=where, store=request.store)
    environment = resolve_environment(
        recipe.environment,
        requires,
        version,
        recipe.hardware.device,
        previous,
        update,
        cache=request.store.root / "wheel-metadata",
        on_message=request.on_message,
        base=base,
    )
    return replace(environment, interpreters=interpreters)


def base_problems(environment: LockedEnvironment, request: LockRequest) -> list[ModelbuildError]:
    """How the base interpreter of this machine is not as locked. There may be none here."""
    if environment.base == "host":
        return []
    from modelbuild.environment.base import find_base
    from modelbuild.environment.layers import check_base

    try:
        base = find_base(environment.python, request.locations)
    except UnavailableError:
        return []
    try:
        check_base(environment, base, request.store)
    except ModelbuildError as error:
        return [error]
    return []


def lock_code(recipe: Recipe, workspace: Workspace) -> dict[str, LockedFile]:
    return recipe_code(recipe, workspace.folder(recipe))


def lock_stage_code(
    recipe: Recipe, stage: Stage, files: Mapping[str, LockedFile], workspace: Workspace
) -> tuple[str, ...] | None:
    _check_script(recipe, stage, files)
    folder = workspace.folder(recipe)
    contents = {path: (folder / path).read_bytes() for path in files}
    return stage_code(stage, contents, recipe.where(f"stages.{stage.name}.code"))


def _check_script(recipe: Recipe, stage: Stage, files: Mapping[str, LockedFile]) -> None:
    """`python train.py` must name a file of the code: the sandbox would find out much later."""
    program, *rest = stage.run
    script = next((word for word in rest if not word.startswith("-")), "")
    plain = program.startswith("python") and rest[:1] == [script] and "{" not in script
    if not plain or not script.endswith(".py") or script.startswith("/"):
        return
    if posixpath.normpath(script) not in files:
        from difflib import get_close_matches

        near = get_close_matches(script, list(files), n=1)
        where = recipe.where(f"stages.{stage.name}.run")
        raise InvalidInputError(
            f"{where}: stage '{stage.name}' runs {script}, which is not in the code",
            facts=[("wanted", "a file that [code] include takes in"), ("found", script)],
            hint=f"Did you mean '{near[0]}'?" if near else None,
        )


def lock_data(
    recipe: Recipe,
    before: LockedRecipe | None,
    environment: LockedEnvironment,
    request: LockRequest,
) -> tuple[dict[str, LockedData], dict[str, Resolved]]:
    """What is locked, and where it is here. What is locked and absent here stays as locked."""
    context = source_context(recipe, environment, request)
    locked: dict[str, LockedData] = {}
    found: dict[str, Resolved] = {}
    for name, data in recipe.data.items():
        if isinstance(data, RecipeData):
            continue
        known = before.data.get(name) if before else None
        declared = declaration(data)
        if isinstance(data, PackageData) and (wheel := environment.wheel(data.package)):
            # The version decides the content, so another version is other data.
            declared = f"{declared} {wheel.version} sha256:{wheel.sha256}"
        if isinstance(data, PackageData) and (known_to := environment.distribution(data.package)):
            declared = f"{declared} {known_to.version} {known_to.digest}"
        if known and known.declared == declared and not request.updates(name):
            locked[name] = known
            try:
                found[name] = realise(
                    name, data, known, context, fetch=False, paranoid=request.paranoid
                )
            except SourceAbsentError:
                continue
        elif request.check:
            raise out_of_date([(recipe.name, f"data: {name}")])
        else:
            found[name] = resolve(name, data, context)
            locked[name] = replace(found[name].locked, declared=declared)
            found[name] = replace(found[name], locked=locked[name])
    return locked, found


def source_context(
    recipe: Recipe, environment: LockedEnvironment, request: LockRequest
) -> SourceContext:
    store = request.store

    def wheel_contents(package: str) -> Path:
        from modelbuild.environment.base import find_base
        from modelbuild.environment.distribution import PACKAGES
        from modelbuild.environment.layers import realise_distribution
        from modelbuild.environment.realise import unpacked_wheel

        if distribution := environment.distribution(package):
            base = partial(find_base, environment.python, request.locations)
            return realise_distribution(distribution, base, store, request.on_message) / PACKAGES
        wheel = environment.wheel(package)
        if wheel is None:
            raise OutOfDateError(
                f"package '{package}' is not in the environment of recipe '{recipe.name}'",
                hint="Add it to [environment] packages, then: modelbuild lock",
            )
        return unpacked_wheel(environment, wheel, store, request.on_message)

    return SourceContext(
        workspace=request.workspace.root,
        recipe=recipe,
        store=store,
        cache=StatCache.of(store.root),
        locations=request.locations,
        unpacked_wheel=wheel_contents,
        on_progress=request.on_message,
    )
