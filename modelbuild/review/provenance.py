"""Everything that went into one output, down to the data, as a tree of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelbuild.review.runs import Run, runs
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import Lock, LockedEnvironment, LockedRecipe
from modelbuild.store.derivations import find_derivation
from modelbuild.store.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """One run with what it read."""

    run: Run
    environment: LockedEnvironment | None
    """Its packages; None where neither this workspace's lock has them."""
    recipe: LockedRecipe | None
    """The recipe in this workspace's lock, for what a digest alone does not say of data."""
    upstream: Mapping[str, Provenance | Digest]
    """By input name; a digest where no run that gave this output is on record."""


def provenance(run: Run, lock: Lock, store: Store) -> Provenance:
    known = {each.realisation.output: each for each in reversed(runs(store))}
    return _provenance(run, known, lock, store)


def _provenance(run: Run, known: Mapping[Digest, Run], lock: Lock, store: Store) -> Provenance:
    derivation = find_derivation(run.realisation.resolved, store)
    environments = {str(each.digest): each for each in lock.environments.values()}
    upstream: dict[str, Provenance | Digest] = {}
    for name, output in (derivation.upstream if derivation else {}).items():
        made = known.get(output)
        # What a stage reads was made before it: an output can't have gone into itself.
        upstream[name] = _provenance(made, known, lock, store) if made else output
    return Provenance(
        run=run,
        environment=environments.get(str(run.inputs.get("environment"))),
        recipe=lock.recipes.get(run.realisation.name.partition(":")[0]),
        upstream=upstream,
    )
