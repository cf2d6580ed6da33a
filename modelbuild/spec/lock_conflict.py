"""A lock with conflict markers: what both sides agree on is kept, the rest is locked again."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from modelbuild.errors import InvalidInputError, NotReproducibleError
from modelbuild.spec.lock import (
    Claim,
    Lock,
    LockedEnvironment,
    LockedRecipe,
    LockedSeeds,
    LockedStage,
)
from modelbuild.spec.lock_file import open_lock
from modelbuild.spec.lock_values import CONFLICT_MARKERS

T = TypeVar("T")


def agreed_lock(data: bytes, path: str = "model.lock") -> Lock:
    """What can be kept of a lock with conflict markers, as the previous lock for `lock`.

    Environments are kept from both sides: their names tell their content. Of a recipe in which
    the sides differ, data stays where both have the same, a package where both have the same or
    only one side moved it, and claims of the same derivation come from both, as do statistics
    over seeds, of which those of more seeds stay. A part that the merge has made invalid is left
    out.

    Raises NotReproducibleError where the sides claim different outputs of one derivation on one
    numeric class: which of them stays is not ours to choose.
    """
    sides = _sides(data)
    ours, theirs = (
        _valid_parts(open_lock(sides[side], f"{path} ({side})", mixed=True))
        for side in ("ours", "theirs")
    )
    base = _ancestor(sides["base"], path)
    named = joined_parts(ours, theirs)
    environments = dict(named.environments)

    def agreed(our: LockedRecipe, their: LockedRecipe) -> LockedRecipe:
        recipe = _agreed_recipe(our, their)
        if our.environment == their.environment:
            return recipe
        before = base.recipes.get(our.name)
        pins = _agreed_pins(
            ours.environments[our.environment],
            base.environments[before.environment] if before else None,
            theirs.environments[their.environment],
        )
        environments[pins.key] = pins
        # Requirements that no recipe has: what is missing among the pins is resolved again.
        return replace(recipe, environment=pins.key, requires=())

    recipes = _joined(ours.recipes, theirs.recipes, agreed)
    return replace(
        named,
        environments=environments,
        recipes={name: _on_classes(each, named.classes) for name, each in recipes.items()},
    )


def joined_parts(ours: Lock, theirs: Lock) -> Lock:
    """What its content names, of both sides: all but the recipes."""
    return Lock(
        environments=_joined(ours.environments, theirs.environments, _agreed_environment),
        classes=_joined(ours.classes, theirs.classes, lambda facts, _: facts),
        probes=_joined(ours.probes, theirs.probes, lambda our, their: {**their, **our}),
    )


def has_conflict(data: bytes) -> bool:
    return any(line.startswith(CONFLICT_MARKERS) for line in data.splitlines())


def _sides(data: bytes) -> dict[str, bytes]:
    """The text as each side has it, and the common ancestor, where it stands between | and =.

    Where it does not, what stands for it has only what is not in conflict.
    """
    sides: dict[str, list[bytes]] = {"ours": [], "base": [], "theirs": []}
    inside = dict(zip(CONFLICT_MARKERS, (*([side] for side in sides), list(sides)), strict=True))
    now = list(sides)
    for line in data.splitlines(keepends=True):
        if line.startswith(CONFLICT_MARKERS):
            now = inside[line[:7]]
        else:
            for side in now:
                sides[side].append(line)
    return {side: b"".join(lines) for side, lines in sides.items()}


def _ancestor(text: bytes, path: str) -> Lock:
    """Empty where the markers do not show it: then the text is not one of a lock."""
    try:
        return _valid_parts(open_lock(text, f"{path} (base)", mixed=True))
    except InvalidInputError:
        return Lock()


def _valid_parts(lock: Lock) -> Lock:
    environments = dict(_valid(lock.environments))
    recipes = {
        name: recipe for name, recipe in _valid(lock.recipes) if recipe.environment in environments
    }
    return Lock(
        environments=environments,
        recipes=recipes,
        classes=dict(_valid(lock.classes)),
        probes=dict(_valid(lock.probes)),
    )


def _valid(parts: Mapping[str, T]) -> Iterator[tuple[str, T]]:
    for name in parts:
        try:
            yield name, parts[name]
        except InvalidInputError:
            continue


def _joined(
    ours: Mapping[str, T], theirs: Mapping[str, T], agreed: Callable[[T, T], T]
) -> dict[str, T]:
    shared = {name: agreed(ours[name], theirs[name]) for name in ours.keys() & theirs.keys()}
    return {**ours, **theirs, **shared}


def _agreed_environment(ours: LockedEnvironment, theirs: LockedEnvironment) -> LockedEnvironment:
    accepted = {*ours.interpreters, *theirs.interpreters}
    return replace(ours, interpreters=tuple(sorted(accepted)))


def _agreed_pins(
    ours: LockedEnvironment, base: LockedEnvironment | None, theirs: LockedEnvironment
) -> LockedEnvironment:
    """Packages that both have, or that one side alone moved; those that both moved are left out."""
    our, their = ({wheel.name: wheel for wheel in each.wheels} for each in (ours, theirs))
    before = {wheel.name: wheel for wheel in base.wheels} if base else {}
    pins = []
    for name in sorted({*our, *their}):
        known, one, other = before.get(name), our.get(name), their.get(name)
        chosen = other if one == known else one if one == other or other == known else None
        if chosen is not None:
            pins.append(chosen)
    return replace(ours, wheels=tuple(pins))


def _agreed_recipe(ours: LockedRecipe, theirs: LockedRecipe) -> LockedRecipe:
    data = {name: data for name, data in ours.data.items() if theirs.data.get(name) == data}
    return replace(joined_results(ours, theirs), data=data)


def joined_results(ours: LockedRecipe, theirs: LockedRecipe) -> LockedRecipe:
    """Ours, with the claims and statistics of the same derivations in theirs.

    Raises NotReproducibleError where claims contradict each other.
    """

    def joined_stage(our: LockedStage, their: LockedStage) -> LockedStage:
        if our.derivation != their.derivation:
            return our
        claims = _all_claims(ours.name, our, their)
        return replace(our, claims=claims, seeds=_all_seeds(our, their))

    return replace(ours, stages=_joined(ours.stages, theirs.stages, joined_stage))


def _on_classes(recipe: LockedRecipe, classes: Container[str]) -> LockedRecipe:
    """Without what names a class whose facts the merge has mixed on both sides."""

    def stays(stage: LockedStage) -> LockedStage:
        return replace(
            stage,
            claims=tuple(each for each in stage.claims if each.numeric_class in classes),
            seeds={n: each for n, each in stage.seeds.items() if each.numeric_class in classes},
        )

    return replace(recipe, stages={name: stays(stage) for name, stage in recipe.stages.items()})


def _all_seeds(ours: LockedStage, theirs: LockedStage) -> dict[str, LockedSeeds]:
    """Those of the stage as it is come first, then those of more seeds, then ours."""

    def worth(each: LockedSeeds) -> tuple[bool, int]:
        return each.derivation == ours.derivation, each.statistics.seeds

    return _joined(ours.seeds, theirs.seeds, lambda our, their: max(our, their, key=worth))


def _all_claims(recipe: str, ours: LockedStage, theirs: LockedStage) -> tuple[Claim, ...]:
    found: dict[str, Claim] = {}
    for claim in (*theirs.claims, *ours.claims):
        other = found.setdefault(claim.numeric_class, claim)
        if (other.derivation, other.output) == (claim.derivation, claim.output):
            found[claim.numeric_class] = claim
        elif other.derivation == claim.derivation:
            raise _contradiction(recipe, claim, other)
    return tuple(claim for _, claim in sorted(found.items()))


def _contradiction(recipe: str, ours: Claim, theirs: Claim) -> NotReproducibleError:
    return NotReproducibleError(
        f"two branches claim different results of recipe '{recipe}'",
        facts=[
            ("derivation", str(ours.derivation)),
            ("class", ours.numeric_class),
            ("ours", str(ours.output)),
            ("theirs", str(theirs.output)),
        ],
        hint=(
            "Keep one of the two claims in model.lock, then see which holds: "
            f"modelbuild verify --rebuild {recipe}"
        ),
    )
