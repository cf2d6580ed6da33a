"""One build as it goes on, stage by stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from modelbuild.build.claims import Judgement, add_claims, judge, may_claim
from modelbuild.build.prepare import gather_inputs, make_site
from modelbuild.build.request import BuildRequest, StageResult
from modelbuild.build.stage import Job, Site, build_stage
from modelbuild.errors import NotReproducibleError, OutOfDateError
from modelbuild.locking.lock import LockRequest, LockResult
from modelbuild.sandbox.isolation import Isolation
from modelbuild.sources.lock_on_disk import update_lock
from modelbuild.spec.derivation import Derivation, StageId, upstream_stages
from modelbuild.store.realisations import Realisation, find
from modelbuild.store.store import Store


@dataclass(kw_only=True, slots=True)
class Run:
    request: BuildRequest
    locked: LockResult
    lock_request: LockRequest
    results: dict[StageId, StageResult] = field(default_factory=dict)
    sites: dict[str, Site] = field(default_factory=dict)

    def realise(self, identity: StageId) -> None:
        """Make the output of one stage exist; those it reads were realised before."""
        derivation = self.locked.derivations[identity]
        recipe = self.locked.recipes[identity.recipe]
        upstream = upstream_stages(recipe, recipe.stages[identity.stage], self.locked.recipes)
        known = {name: self.results[each].realisation for name, each in upstream.items()}
        realised = {name: each for name, each in known.items() if each is not None}
        realisation: Realisation | None = None
        how = "would build"
        if len(realised) == len(known):
            resolved = derivation.resolve({name: r.output for name, r in realised.items()})
            realisation = self._valid(identity, resolved)
            how = "would build" if realisation is None else "valid"
            if realisation is None and not self.request.dry_run:
                outputs = {name: r.path(self.request.store) for name, r in realised.items()}
                inputs, check = gather_inputs(identity, self.locked, self.lock_request, outputs)
                job = Job(identity=identity, derivation=derivation, resolved=resolved, inputs=inputs)
                realisation, how = self._build(job, check)
        self.results[identity] = self._result(identity, realisation, how)

    def _valid(self, identity: StageId, resolved: Derivation) -> Realisation | None:
        """What the store has, at the isolation asked for: what the lock claims comes first."""
        stage = self.locked.lock.recipes[identity.recipe].stages[identity.stage]
        claimed = {claim.output for claim in stage.claims}
        found = [
            each
            for each in find(resolved.digest, self.request.store)
            if Isolation(each.isolation).satisfies(self.request.isolation)
        ]
        found.sort(key=lambda each: (each.output not in claimed, each.isolation != "full"))
        return found[0] if found else None

    def _build(self, job: Job, check: Callable[[], None]) -> tuple[Realisation, str]:
        observer, identity = self.request.observer, job.identity
        site = self._site(identity.recipe)

        def waiting(holder: str) -> None:
            observer.message(f"{identity}: waiting for {holder}, which builds the same")

        with self.request.store.lock(f"build-{job.resolved.digest.store_key}", waiting):
            realisation = self._valid(identity, job.resolved)
            if realisation is not None:
                return realisation, "valid"
            order = list(self.locked.derivations)
            observer.stage_started(identity, order.index(identity) + 1, len(order))
            realisation = build_stage(
                job, site, lambda line: observer.stage_line(identity, line), check
            )
            observer.stage_finished(identity, realisation)
            return realisation, "built"

    def _site(self, recipe: str) -> Site:
        if recipe not in self.sites:
            self.sites[recipe] = make_site(
                self.locked.recipes[recipe],
                self.locked,
                self.lock_request,
                self.request.isolation,
                keep_failed=self.request.keep_failed,
            )
        return self.sites[recipe]

    def _result(
        self, identity: StageId, realisation: Realisation | None, how: str
    ) -> StageResult:
        derivation = self.locked.derivations[identity].digest
        if realisation is None:
            return StageResult(derivation=derivation, how=how)
        recipe = self.locked.recipes[identity.recipe]
        stage = self.locked.lock.recipes[identity.recipe].stages[identity.stage]
        return StageResult(
            derivation=derivation,
            how=how,
            realisation=realisation,
            path=realisation.path(self.request.store),
            judgement=judge(
                realisation.output,
                realisation.metrics,
                realisation.numeric_class,
                stage,
                recipe.tolerances,
            ),
        )

    def hold_against_claims(self) -> None:
        """Add first claims to the lock; raise NotReproducibleError where one is broken.

        With `locked`, a missing claim is OutOfDateError instead.
        """
        new = {
            identity: result.realisation
            for identity, result in self.results.items()
            if result.realisation is not None
            and result.judgement is not None
            and may_claim(result.judgement, result.realisation, asked=self.request.claim)
        }
        if self.request.locked:
            missing = [str(each) for each in new if self.results[each].judgement.claim is None]
            if missing:
                raise OutOfDateError(
                    "model.lock has no claim for what was built",
                    facts=[("stages", ", ".join(missing))],
                    hint="To add it, build without --locked and commit model.lock.",
                )
        elif new and self.request.writes_lock:
            update_lock(
                self.request.workspace, self.request.store, lambda lock: add_claims(lock, new)
            )
        self._raise_broken()

    def _raise_broken(self) -> None:
        for identity, result in self.results.items():
            recipe = self.locked.recipes[identity.recipe]
            judgement, realisation = result.judgement, result.realisation
            if not judgement or not realisation or not judgement.claim:
                continue
            if judgement.broken(recipe.determinism.level):
                raise not_reproducible(identity, judgement, realisation, self.request.store)


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
