"""Verify one stage: its output in the store, its claims, and a second build."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from modelbuild.build.agreement import Agreement, result_of
from modelbuild.build.claims import Judgement, check_claim, not_reproducible
from modelbuild.build.expectation import Expectation
from modelbuild.build.run import Run
from modelbuild.errors import (
    ModelbuildError,
    NotReproducibleError,
    OutOfDateError,
)
from modelbuild.spec.derivation import StageId
from modelbuild.spec.lock import Claim
from modelbuild.spec.recipe import Level
from modelbuild.store.realisations import Realisation, altered
from modelbuild.store.tree import scan_tree
from modelbuild.verify.compare import compare_trees
from modelbuild.verify.on_record import output_here
from modelbuild.verify.steps import traces_of
from modelbuild.verify.verdict import Rebuild, StageVerdict

if TYPE_CHECKING:
    from modelbuild.build.stage import Site


def verify_stage(identity: StageId, run: Run, *, rebuild: bool) -> StageVerdict:
    """Look at a stage whose upstream stages were looked at; with `rebuild`, build it again."""
    upstream = run.upstream(identity)
    if upstream is None:
        first = output_here(identity, run)
    else:
        first = run.valid(identity, run.resolve(identity, upstream))
    problems: list[ModelbuildError] = []
    state = "intact" if first else "absent"
    if first:
        found = scan_tree(first.path(run.request.store)).digest
        if found != first.output:
            state = "corrupt"
            problems.append(altered(first, found, first.path(run.request.store)))
    claims = run.claims(identity)
    if not claims:
        problems.append(_no_claim(identity))
    claim = "unchecked" if claims else "missing"
    if first:
        claim = _hold_against_claims(identity, run, first, problems)
    sound = first if state == "intact" else None
    second = rebuilt = None
    if rebuild and upstream is not None:
        if first and not sound:
            run.request.store.set_aside(first.path(run.request.store))
        second, rebuilt = _rebuild(identity, run, upstream, sound, problems)
    # Without a rebuild, an altered output still tells which outputs were made from it.
    run.finish(identity, sound or second or (None if rebuild else first), "valid")
    notes = [note for each in (first, second) if each for note in each.notes]
    return StageVerdict(
        store=state,
        claim=claim,
        rebuild=rebuilt,
        problems=tuple(problems),
        notes=tuple(dict.fromkeys(notes)),
    )


def _hold_against_claims(
    identity: StageId, run: Run, realisation: Realisation, problems: list[ModelbuildError]
) -> str:
    """How a realisation relates to its claims, in a word; what does not hold joins `problems`."""
    level = run.locked.recipes[identity.recipe].determinism.level
    judgement = run.judge(identity, realisation)
    untrue = _untrue_claims(identity, run.claims(identity), realisation)
    problems += untrue
    if judgement.broken(level):
        problems.append(not_reproducible(identity, judgement, realisation, run.request.store))
    return "untrue" if untrue else _claim_word(judgement, level)


def _rebuild(
    identity: StageId,
    run: Run,
    upstream: Mapping[str, Realisation],
    first: Realisation | None,
    problems: list[ModelbuildError],
) -> tuple[Realisation | None, Rebuild | None]:
    """Build again; what does not come out as before joins `problems`."""
    level = run.locked.recipes[identity.recipe].determinism.level
    try:
        resolved = run.resolve(identity, upstream)
        site = run.site(identity.recipe)
        problems += _faults(identity, run, site, level)
        expected = run.expect(identity, site, first)
        second = run.build(identity, resolved, upstream, site)
    except ModelbuildError as error:
        problems.append(error)
        return None, None
    rebuilt = _compare(identity, run, first, second, expected)
    if rebuilt and rebuilt.breaks(level):
        problems.append(_not_reproducible(identity, rebuilt))
    elif first is not None and second.output != first.output:
        # The first may be of another class: the claim of this one counts too.
        judgement = run.judge(identity, second)
        if judgement.broken(level):
            problems.append(not_reproducible(identity, judgement, second, run.request.store))
    return second, rebuilt


def _faults(identity: StageId, run: Run, site: Site, level: Level) -> list[ModelbuildError]:
    """That this machine computes other bits than its class does, said once for each recipe."""
    if identity.recipe in run.probed:
        return []
    run.say_faults(identity, site)
    probed = run.probe(identity.recipe, site)
    if not probed or not probed.differing or level is not Level.BITWISE:
        return []
    from modelbuild.build.probes import probes_differ

    return [probes_differ(probed)]


def _untrue_claims(
    identity: StageId, claims: tuple[Claim, ...], realisation: Realisation
) -> list[ModelbuildError]:
    found: list[ModelbuildError] = []
    for claim in claims:
        try:
            check_claim(identity, claim, realisation)
        except ModelbuildError as error:
            found.append(error)
    return found


def _claim_word(judgement: Judgement, level: Level) -> str:
    if judgement.agreement is None:
        return "missing"
    if judgement.agreement is Agreement.IDENTICAL:
        return "holds"
    if not judgement.same_class:
        return "other class"
    return "broken" if judgement.broken(level) else str(judgement.agreement)


def _compare(
    identity: StageId,
    run: Run,
    first: Realisation | None,
    second: Realisation,
    expected: Expectation | None,
) -> Rebuild | None:
    """The second build against the first output, else against a claim; None without either."""
    store = run.request.store
    if first:
        same = first.numeric_class == second.numeric_class
        results = result_of(first, store), result_of(second, store)
        compared = run.compare(identity, *results, same_class=same)
        identical = compared.agreement is Agreement.IDENTICAL
        return Rebuild(
            compared=compared,
            against="store",
            same_class=same,
            first_class=first.numeric_class,
            second_class=second.numeric_class,
            second=second.path(store),
            comparison=(
                None if identical else compare_trees(first.path(store), second.path(store))
            ),
            expectation=expected,
            steps=None if identical else traces_of(first, second, store),
        )
    judgement = run.judge(identity, second)
    if judgement.claim is None or judgement.compared is None:
        return None
    return Rebuild(
        compared=judgement.compared,
        against="claim",
        same_class=judgement.same_class,
        first_class=judgement.claim.numeric_class,
        second_class=second.numeric_class,
        second=second.path(store),
        comparison=None,
        expectation=expected,
    )


def _no_claim(identity: StageId) -> OutOfDateError:
    return OutOfDateError(
        f"model.lock has no claim for {identity}",
        hint="To build it and add the claim: modelbuild build",
    )


def _not_reproducible(identity: StageId, rebuild: Rebuild) -> NotReproducibleError:
    return NotReproducibleError(
        f"{identity} is not reproducible: built again on the same numeric class, "
        f"it came out {rebuild.agreement}",
        facts=[("class", rebuild.second_class), ("kept", str(rebuild.second))],
        hint=_next(identity, rebuild),
    )


def _next(identity: StageId, rebuild: Rebuild) -> str:
    """How to find out more: operations are recorded of steps of torch only."""
    if rebuild.against == "claim":
        return (
            "The output that was claimed is not here. To build once more, and see where the two"
            f" differ:\nmodelbuild verify --rebuild {identity.recipe}"
        )
    found = rebuild.steps.difference if rebuild.steps else None
    if found and found.unit == "step":
        return f"modelbuild verify --explain {identity.recipe} finds the operation of that step."
    return ""
