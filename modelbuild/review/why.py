"""Why a stage would be built, or would not: its derivation against the last one that was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelbuild.build.request import BuildResult
from modelbuild.review.changes import Change, changes
from modelbuild.review.runs import Run, runs
from modelbuild.spec.canonical import Json
from modelbuild.spec.derivation import Derivation, StageId, upstream_stages
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import Claim, Lock
from modelbuild.store.derivations import find_derivation
from modelbuild.store.realisations import Realisation, find_all
from modelbuild.store.roots import rooted
from modelbuild.store.store import Store

_WHOLE = frozenset({"run", "metrics", "runtime", "base", "schema"})
"""Fields that are compared as one value; the entries of the others are compared one by one."""
_REPEATED = frozenset({"MODELBUILD_SEED", "MODELBUILD_ALLOW"})
"""Environment variables that follow from a field which is told by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Why:
    """One stage, as a build would find it."""

    identity: StageId
    how: str
    """`valid` or `would build`."""
    path: Path | None
    """Of the valid output."""
    last: Run | None
    """The build that is compared with, not the one at hand: the claimed one, else the one with the
    fewest changes; None: never built here."""
    moved: tuple[Change[Json], ...]
    """From that build to the stage as it is, in the recipe's words."""


def explain(result: BuildResult, store: Store) -> list[Why]:
    """Of every stage of a build's dry run, upstream stages of other recipes included."""
    found = []
    built = runs(store)
    for identity, stage in result.stages.items():
        now = result.locked.derivations[identity]
        resolved = stage.realisation.resolved if stage.realisation else None
        outputs = _outputs(identity, result)
        others = [
            run
            for run in built
            if run.realisation.name == str(identity) and run.realisation.resolved != resolved
        ]
        claims = result.locked.entries[identity.recipe].stages[identity.stage].claims
        last, moved = _compared(others, claims, now, outputs, store)
        found.append(
            Why(
                identity=identity,
                how=stage.how,
                path=stage.path,
                last=last,
                moved=moved,
            )
        )
    return found


def _compared(
    others: Sequence[Run],
    claims: Sequence[Claim],
    now: Derivation,
    outputs: Mapping[str, Json],
    store: Store,
) -> tuple[Run | None, tuple[Change[Json], ...]]:
    """The run to compare with, of `others`, latest first; and what moved since.

    One of the very same inputs, else the one that is claimed, else the one with the fewest changes.

    Other seeds and experiments are runs too: the latest of all may be far from the recipe.
    """
    made = {(claim.derivation, claim.output) for claim in claims}
    found = []
    for run in others:
        before = find_derivation(run.realisation.resolved, store)
        moved = tuple(_moved(before, now, outputs)) if before else ()
        same = before is not None and not moved
        claimed = (run.realisation.derivation, run.realisation.output) in made
        found.append(((not same, not claimed, before is None, len(moved)), run, moved))
    if not found:
        return None, ()
    _, nearest, moved = min(found, key=lambda each: each[0])
    return nearest, moved


def _outputs(identity: StageId, result: BuildResult) -> dict[str, Json]:
    """The output of every upstream stage; None where that would be built first."""
    recipe = result.locked.recipes[identity.recipe]
    reads = upstream_stages(recipe, recipe.stages[identity.stage], result.locked.recipes)
    outputs: dict[str, Json] = {}
    for name, each in reads.items():
        stage = result.stages[each]
        outputs[name] = str(stage.realisation.output) if stage.realisation else None
    return outputs


def _moved(
    before: Derivation, now: Derivation, outputs: Mapping[str, Json]
) -> Iterator[Change[Json]]:
    old = dict(_flat(before.fields))
    new = dict(_flat(now.fields))
    old |= {name: str(digest) for name, digest in before.upstream.items()}
    # One that is to be built first has no output yet: that is a change, whatever comes out.
    new |= {name: "not built yet" if each is None else each for name, each in outputs.items()}
    yield from changes(old, new)


def _flat(fields: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """`params.lr`, `code.train.py`, `data.digits`, `hardware.threads`, `seed`, ..."""
    for name, value in fields.items():
        if name in _WHOLE or not isinstance(value, Mapping):
            yield name, value
            continue
        for key, each in value.items():
            if key not in _REPEATED:
                yield f"{name}.{key}", each


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What an object of the store is to those who might miss it."""

    path: Path
    links: tuple[Path, ...]
    """Links in users' folders that keep it from being collected."""
    claimed: tuple[StageId, ...]
    """Stages of this workspace's lock that claim it."""
    made_by: tuple[Realisation, ...]
    used_by: tuple[str, ...]
    """Stages that were built from it, as `RECIPE:STAGE`."""


def keeps(path: Path, lock: Lock, store: Store) -> Kept | None:
    """Of an output, named by its path, by a path in it, or by a link to it; None: no output."""
    resolved = path.resolve()
    objects = (store.root / "objects").resolve()
    if objects not in resolved.parents:
        return None
    target = store.root / "objects" / resolved.relative_to(objects).parts[0]
    known = [each for each, _ in find_all(store)]
    made = [each for each in known if each.path(store) == target]
    digests = {each.output for each in made}
    return Kept(
        path=target,
        links=tuple(sorted(rooted(store).get(target, []))),
        claimed=tuple(_claimed(digests, lock)),
        made_by=tuple(made),
        used_by=tuple(_users(digests, known, store)),
    )


def _claimed(digests: set[Digest], lock: Lock) -> Iterator[StageId]:
    for name, recipe in sorted(lock.recipes.items()):
        for stage_name, stage in sorted(recipe.stages.items()):
            if digests.intersection(claim.output for claim in stage.claims):
                yield StageId(name, stage_name)


def _users(digests: set[Digest], known: Iterable[Realisation], store: Store) -> list[str]:
    found = set()
    for realisation in known:
        derivation = find_derivation(realisation.resolved, store)
        if derivation and digests.intersection(derivation.upstream.values()):
            found.add(realisation.name)
    return sorted(found)
