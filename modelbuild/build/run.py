"""One build as it goes on, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.build.agreement import Compared, Result, compare_results, result_of
from modelbuild.build.claims import Judgement, judge
from modelbuild.build.request import BuildRequest, StageResult
from modelbuild.locking.lock import LockResult
from modelbuild.locking.request import LockRequest
from modelbuild.sandbox.isolation import Isolation
from modelbuild.spec.derivation import Derivation, StageId, upstream_stages
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import Claim
from modelbuild.spec.probes import ProbeRun, probe_run
from modelbuild.store.realisations import Realisation, check_intact, find
from modelbuild.store.stat_cache import StatCache

if TYPE_CHECKING:
    from modelbuild.build.expectation import Expectation
    from modelbuild.build.probes import Probed
    from modelbuild.build.stage import Job, Site


@dataclass(kw_only=True, slots=True)
class Run:
    """What is known so far; what runs stages is imported when there is one to run."""

    request: BuildRequest
    locked: LockResult
    lock_request: LockRequest
    results: dict[StageId, StageResult] = field(default_factory=dict)
    sites: dict[str, Site] = field(default_factory=dict)
    probed: dict[str, Probed | None] = field(default_factory=dict)
    known: dict[StageId, list[Digest]] = field(default_factory=dict)
    """What came out of stages, by claims and records, whether or not it is here."""

    def realise(self, identity: StageId) -> None:
        """Make the output of one stage exist; those it reads were realised before."""
        realisation, how = None, "would build"
        upstream = self.upstream(identity)
        if upstream is not None:
            resolved = self.resolve(identity, upstream)
            realisation = self.valid(identity, resolved)
            if realisation is not None:
                check_intact(realisation, self.request.store, self._cache)
                how = "valid"
            elif not self.request.dry_run:
                realisation, how = self._build(identity, resolved, upstream)
        self.finish(identity, realisation, how)

    @property
    def _cache(self) -> StatCache:
        return StatCache.of(self.request.store.root)

    def upstream(self, identity: StageId) -> dict[str, Realisation] | None:
        """What a stage reads, by input name; None where that is not there (in a dry run)."""
        recipe = self.locked.recipes[identity.recipe]
        reads = upstream_stages(recipe, recipe.stages[identity.stage], self.locked.recipes)
        known = {name: self.results[each].realisation for name, each in reads.items()}
        found = {name: each for name, each in known.items() if each is not None}
        return found if len(found) == len(known) else None

    def resolve(self, identity: StageId, upstream: Mapping[str, Realisation]) -> Derivation:
        outputs = {name: realisation.output for name, realisation in upstream.items()}
        return self.locked.derivations[identity].resolve(outputs)

    def valid(self, identity: StageId, resolved: Derivation) -> Realisation | None:
        """What the store has, at the isolation asked for: what the lock claims comes first."""
        claimed = {claim.output for claim in self.claims(identity)}

        def damaged(record: Path) -> None:
            self.request.observer.message(f"{identity}: a damaged record is not used: {record}")

        found = [
            each
            for each in find(resolved.digest, self.request.store, damaged)
            if Isolation(each.isolation).satisfies(self.request.isolation)
        ]
        found.sort(key=lambda each: (each.output not in claimed, each.isolation != "full"))
        return found[0] if found else None

    def _build(
        self, identity: StageId, resolved: Derivation, upstream: Mapping[str, Realisation]
    ) -> tuple[Realisation, str]:
        observer = self.request.observer
        site = self.site(identity.recipe)

        def waiting(holder: str) -> None:
            observer.message(f"{identity}: waiting for {holder}, which builds the same")

        with self.request.store.lock(f"build-{resolved.digest.store_key}", waiting):
            realisation = self.valid(identity, resolved)
            if realisation is not None:
                return realisation, "valid"
            self.say_faults(identity, site)
            self.expect(identity, site, None)
            return self.build(identity, resolved, upstream, site), "built"

    def probe(self, recipe: str, site: Site) -> Probed | None:
        """The probes of this machine with a recipe's environment; none without isolation."""
        from modelbuild.build.probes import probe

        if recipe not in self.probed and site.sandbox.isolation is Isolation.FULL:
            self.probed[recipe] = probe(
                site,
                self.locked.recipes[recipe].hardware,
                self.probe_run(recipe),
                self.locked.previous,
                self.request.observer.message,
            )
        return self.probed.get(recipe)

    def probe_run(self, recipe: str) -> ProbeRun:
        entry = self.locked.entries[recipe]
        return probe_run(self.locked.recipes[recipe], entry.environment, entry.runtime)

    def say_faults(self, identity: StageId, site: Site) -> None:
        """Once for each recipe."""
        from modelbuild.build.probes import complaints

        if identity.recipe in self.probed:
            return
        probed = self.probe(identity.recipe, site)
        for complaint in complaints(probed) if probed else ():
            self.request.observer.notice(f"warning: {complaint}")

    def expect(
        self, identity: StageId, site: Site, first: Realisation | None
    ) -> Expectation | None:
        """Say what to expect of a stage on this machine, where results are of other classes only.

        They are `first`, else the claims; of several, one that promises identical bits.
        """
        from modelbuild.build.expectation import ClassKnown, forecast
        from modelbuild.build.probes import probes_of

        known = self._classes_before(identity, first)
        here, run = site.numeric_class, self.probe_run(identity.recipe)
        if not known or here.key in known:
            return None
        probed = self.probe(identity.recipe, site)
        best = forecast(
            known,
            ClassKnown(here.key, here.facts, probed.here if probed else None),
            lambda key: probes_of(key, run, self.locked.previous, self.request.store),
        )
        self.request.observer.notice(f"{identity}: {best}")
        return best

    def _classes_before(
        self, identity: StageId, first: Realisation | None
    ) -> dict[str, Mapping[str, str]]:
        if first:
            return {first.numeric_class: first.facts}
        claims = self.claims(identity)
        classes = self.locked.previous.classes
        return {claim.numeric_class: classes[claim.numeric_class] for claim in claims}

    def build(
        self,
        identity: StageId,
        resolved: Derivation,
        upstream: Mapping[str, Realisation],
        site: Site,
    ) -> Realisation:
        """Run the stage, whether or not the store has its output."""
        from modelbuild.build.stage import build_stage

        observer = self.request.observer
        order = list(self.locked.derivations)
        index = order.index(identity) + 1

        def on_start(last_line: Callable[[], str]) -> None:
            observer.stage_started(identity, index, len(order), last_line)

        with self.job(identity, resolved, upstream) as (job, check):
            realisation = build_stage(job, site, on_start, check)
        observer.stage_finished(identity, realisation)
        return realisation

    @contextmanager
    def job(
        self, identity: StageId, resolved: Derivation, upstream: Mapping[str, Realisation]
    ) -> Iterator[tuple[Job, Callable[[], None]]]:
        """All that a run of the stage needs, its GPUs leased, and the check that its data did not
        change meanwhile.
        """
        from modelbuild.build.prepare import gather_inputs
        from modelbuild.build.stage import Job
        from modelbuild.sandbox.lease import leased_gpus

        for each in upstream.values():
            check_intact(each, self.request.store, self._cache)
        outputs = {name: each.path(self.request.store) for name, each in upstream.items()}
        inputs, check = gather_inputs(identity, self.locked, self.lock_request, outputs)

        def waiting(what: str) -> None:
            self.request.observer.message(f"{identity}: waiting for {what}")

        with leased_gpus(inputs.recipe.hardware, waiting) as gpus:
            job = Job(
                identity=identity,
                derivation=self.locked.derivations[identity],
                resolved=resolved,
                inputs=inputs,
                gpus=gpus,
            )
            yield job, check

    def site(self, recipe: str) -> Site:
        """The machine and the environment of a recipe, made on first use."""
        from modelbuild.build.prepare import make_site

        if recipe not in self.sites:
            self.sites[recipe] = make_site(
                self.locked.recipes[recipe],
                self.locked,
                self.lock_request,
                self.request.isolation,
                keep_failed=self.request.keep_failed,
            )
        return self.sites[recipe]

    def finish(self, identity: StageId, realisation: Realisation | None, how: str) -> None:
        """Keep the result of a stage, held against its claims."""
        derivation = self.locked.derivations[identity].digest
        if realisation is None:
            self.results[identity] = StageResult(derivation=derivation, how=how)
            return
        self.results[identity] = StageResult(
            derivation=derivation,
            how=how,
            realisation=realisation,
            path=realisation.path(self.request.store),
            judgement=self.judge(identity, realisation),
        )

    def judge(self, identity: StageId, realisation: Realisation) -> Judgement:
        entry = self.locked.entries[identity.recipe].stages[identity.stage]

        def compare(claim: Claim, result: Result, same_class: bool) -> Compared:
            first = Result(output=claim.output, metrics=claim.metrics)
            return self.compare(identity, first, result, same_class=same_class)

        result = result_of(realisation, self.request.store)
        return judge(result, realisation.numeric_class, entry, compare)

    def compare(
        self, identity: StageId, first: Result, second: Result, *, same_class: bool
    ) -> Compared:
        """Two results of a stage; an output that is claimed may be in the store."""
        recipe = self.locked.recipes[identity.recipe]
        if first.output != second.output and identity.stage in recipe.predictions:
            first = replace(first, path=self.request.store.find(first.output))
        return compare_results(first, second, recipe, identity.stage, same_class=same_class)

    def claims(self, identity: StageId) -> tuple[Claim, ...]:
        """The claims of a stage as it is now; those of other derivations are stale."""
        return self.locked.entries[identity.recipe].stages[identity.stage].current_claims
