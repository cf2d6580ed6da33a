"""Hold what was built against the claims in the lock.

Bits are compared first, always; the numeric class only explains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from modelbuild.build.agreement import Agreement, Compared, Result, breaks
from modelbuild.errors import InvalidInputError, NotReproducibleError
from modelbuild.spec.derivation import StageId
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import Claim, Lock, LockedStage
from modelbuild.spec.probes import Probes
from modelbuild.spec.recipe import Level
from modelbuild.store.realisations import Realisation
from modelbuild.store.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """One result against the claims of its stage."""

    compared: Compared | None
    """None: there is no claim to compare with."""
    claim: Claim | None
    """The one compared with: of the same class, else with the same bits, else any."""
    same_class: bool

    @property
    def agreement(self) -> Agreement | None:
        return self.compared.agreement if self.compared else None

    def broken(self, level: Level) -> bool:
        """Whether the stage failed to reproduce at the level that its recipe promises."""
        return self.compared is not None and self.same_class and breaks(self.compared, level)


def judge(
    result: Result,
    numeric_class: str,
    stage: LockedStage,
    compare: Callable[[Claim, Result, bool], Compared],
) -> Judgement:
    """Compare a result with the claim of its own class, else with one of another class.

    `compare` gets the claim, the result, and whether they are of one class.
    """
    claims = stage.current_claims
    own = next((claim for claim in claims if claim.numeric_class == numeric_class), None)
    same_bits = next((claim for claim in claims if claim.output == result.output), None)
    claim = own or same_bits or (claims[0] if claims else None)
    if claim is None:
        return Judgement(compared=None, claim=None, same_class=False)
    compared = compare(claim, result, own is not None)
    return Judgement(compared=compared, claim=claim, same_class=own is not None)


def claim_of(realisation: Realisation, derivation: Digest) -> Claim:
    """`derivation` is the one that was asked for: the output may have been built for an older
    one whose inputs came out the same.
    """
    return Claim(
        numeric_class=realisation.numeric_class,
        derivation=derivation,
        output=realisation.output,
        bytes=realisation.bytes,
        parameters=realisation.parameters,
        metrics=realisation.metrics,
    )


def add_claims(
    lock: Lock,
    new: Mapping[StageId, tuple[Digest, Realisation]],
    probes: Mapping[str, Mapping[str, Probes]],
) -> Lock:
    """The lock with claims for derivations. A class that has a claim by now keeps it.

    `probes` are of the classes of the claims, by class and by the name of their run; they too
    are kept where the lock has some, unless those are of other settings.
    """
    for identity, (derivation, realisation) in new.items():
        recipe = lock.recipes.get(identity.recipe)
        stage = recipe.stages.get(identity.stage) if recipe else None
        if not recipe or not stage or stage.derivation != derivation:
            continue
        claims = {claim.numeric_class: claim for claim in stage.current_claims}
        claims.setdefault(realisation.numeric_class, claim_of(realisation, derivation))
        ordered = tuple(claims[key] for key in sorted(claims))
        built = replace(stage, claims=ordered, seeds=stage.current_seeds)
        stages = {**recipe.stages, identity.stage: built}
        recipes = {**lock.recipes, identity.recipe: replace(recipe, stages=stages)}
        classes = {**lock.classes, realisation.numeric_class: realisation.facts}
        lock = replace(lock, recipes=recipes, classes=classes)
    for key, runs in probes.items():
        if key in lock.classes:
            lock = replace(lock, probes={**lock.probes, key: _joined(lock.probes.get(key), runs)})
    return lock


def _joined(locked: Mapping[str, Probes] | None, found: Mapping[str, Probes]) -> dict[str, Probes]:
    joined = dict(locked or {})
    for name, probes in found.items():
        before = joined.get(name)
        if before is None or before.settings != probes.settings:
            joined[name] = probes
    return joined


def may_claim(judgement: Judgement, realisation: Realisation, *, asked: bool) -> bool:
    """Whether a result becomes a claim: the first one does; on another class, if asked for."""
    if realisation.isolation != "full" or judgement.same_class:
        return False
    return asked or judgement.claim is None


def check_claim(identity: StageId, claim: Claim, realisation: Realisation) -> None:
    """Raise InvalidInputError where a claim says something else of the output that it names."""
    if claim.output != realisation.output:
        return
    facts = []
    for name in sorted({*claim.metrics, *realisation.metrics}):
        claimed, found = claim.metrics.get(name), realisation.metrics.get(name)
        if claimed != found:
            facts.append((f"metric {name}", f"{claimed} claimed, {found} recorded"))
    if claim.bytes != realisation.bytes:
        facts.append(("bytes", f"{claim.bytes} claimed, {realisation.bytes} recorded"))
    if claim.parameters != realisation.parameters:
        facts.append(("parameters", f"{claim.parameters} claimed, {realisation.parameters} found"))
    if facts:
        raise InvalidInputError(
            f"model.lock: the claim of {identity} is not what its output gave",
            facts=facts,
            hint="It was edited or merged wrongly. Take it from the commit that added it.",
        )


def not_reproducible(
    identity: StageId, judgement: Judgement, realisation: Realisation, store: Store
) -> NotReproducibleError:
    """The claim of the same class says something else."""
    claim = judgement.claim
    assert claim is not None
    facts = [("claimed", str(claim.output)), ("found", str(realisation.output))]
    for name, value in claim.metrics.items():
        found = realisation.metrics.get(name)
        if found != value:
            facts.append((name, f"{value!r} claimed, {found!r} found"))
    facts.append(("kept", str(realisation.path(store))))
    first = store.find(claim.output)
    if first is not None:
        facts.append(("kept", str(first)))
    agreement = str(judgement.agreement)
    return NotReproducibleError(
        f"{identity} is not reproducible: {agreement} on the numeric class of its claim "
        f"({claim.numeric_class})",
        facts=facts,
        hint=f"To see where they differ: modelbuild verify --rebuild {identity.recipe}",
    )
