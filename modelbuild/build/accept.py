"""After the last stage: first claims are added to the lock, broken ones and tolerances raised."""

from __future__ import annotations

from collections.abc import Mapping

from modelbuild.build.claims import add_claims, check_claim, may_claim, not_reproducible
from modelbuild.build.run import Run
from modelbuild.build.tolerances import check_tolerances
from modelbuild.errors import OutOfDateError
from modelbuild.sources.lock_on_disk import update_lock
from modelbuild.spec.derivation import StageId, upstream_stages
from modelbuild.spec.digest import Digest
from modelbuild.spec.probes import Probes
from modelbuild.store.realisations import Realisation


def accept(run: Run) -> None:
    """Hold the results against the lock's claims, and add first ones.

    Raises NotReproducibleError where one is broken, InvalidInputError for a claim that says
    something else of its output and for a tolerance for no metric; with `locked`, OutOfDateError
    for a missing claim.
    """
    tainted = _made_from(run, _broken(run))
    new = {
        identity: (result.derivation, result.realisation)
        for identity, result in run.results.items()
        if result.realisation is not None
        and result.judgement is not None
        and may_claim(result.judgement, result.realisation, asked=run.request.claim)
        and identity not in tainted
    }
    if run.request.dry_run:
        return
    _check_claims(run)
    _check_tolerances(run)
    if run.request.locked:
        missing = [str(each) for each in run.results if not run.claims(each)]
        if missing:
            raise OutOfDateError(
                "model.lock has no claim for what was built",
                facts=[("stages", ", ".join(missing))],
                hint="To add it, build without --locked and commit model.lock.",
            )
    elif new and run.request.writes_lock:
        probes = _probes_beside(run, new)
        update_lock(run.request.workspace, lambda lock: add_claims(lock, new, probes))
    _raise_broken(run)


def _probes_beside(
    run: Run, claims: Mapping[StageId, tuple[Digest, Realisation]]
) -> dict[str, dict[str, Probes]]:
    """What the store has of the classes of new claims, which may be another machine's."""
    from modelbuild.build.probes import kept_probes

    found: dict[str, dict[str, Probes]] = {}
    for identity, (_, realisation) in claims.items():
        probed, key = run.probe_run(identity.recipe), realisation.numeric_class
        probes = kept_probes(key, probed, run.request.store)
        if probes:
            found.setdefault(key, {})[probed.name] = probes
    return found


def _check_claims(run: Run) -> None:
    for identity, result in run.results.items():
        for claim in run.claims(identity):
            if result.realisation:
                check_claim(identity, claim, result.realisation)


def _check_tolerances(run: Run) -> None:
    for recipe in run.locked.recipes.values():
        stages = {
            identity.stage: result.realisation
            for identity, result in run.results.items()
            if identity.recipe == recipe.name and result.realisation
        }
        check_tolerances(recipe, stages, run.request.store)


def _broken(run: Run) -> set[StageId]:
    """The stages whose result breaks the claim of its class."""
    return {
        identity
        for identity, result in run.results.items()
        if result.judgement
        and result.judgement.broken(run.locked.recipes[identity.recipe].determinism.level)
    }


def _made_from(run: Run, others: set[StageId]) -> set[StageId]:
    """These stages and all that are made from them; results are in the order of building."""
    found = set(others)
    for identity in run.results:
        recipe = run.locked.recipes[identity.recipe]
        reads = upstream_stages(recipe, recipe.stages[identity.stage], run.locked.recipes)
        if found.intersection(reads.values()):
            found.add(identity)
    return found


def _raise_broken(run: Run) -> None:
    broken = _broken(run)
    for identity, result in run.results.items():
        if identity in broken and result.judgement and result.realisation:
            store = run.request.store
            raise not_reproducible(identity, result.judgement, result.realisation, store)
