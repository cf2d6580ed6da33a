"""`modelbuild verify --explain` for one stage: which step, from what is on record, and its runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from modelbuild.build.run import Run
from modelbuild.spec.derivation import StageId
from modelbuild.store.realisations import Realisation, find
from modelbuild.store.store import Store
from modelbuild.verify.explain import NOTHING_RECORDED, Explanation, compare_with, explain
from modelbuild.verify.recordings import Recording, parse_recordings, read_recordings
from modelbuild.verify.steps import counted, traces_of
from modelbuild.verify.trial import record_step

Pair = tuple[Realisation, Realisation]
ONLY_TORCH = "only the operations of torch are recorded"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainRequest:
    step: int | None = None
    """Look at this one, whatever was recorded of the builds."""
    save: Path | None = None
    """Keep a recording of the step here, to compare it on another machine."""
    against: Path | None = None
    """Compare with the recording in this file."""

    @property
    def needs_pair(self) -> bool:
        """Whether the step is that of two builds that came out different."""
        return self.step is None and self.against is None


def pair_on_record(identity: StageId, run: Run, upstream: Mapping[str, Realisation]) -> Pair | None:
    """Two builds of the same on one numeric class with different outputs, traced ones first."""
    resolved = run.resolve(identity, upstream)
    builds = sorted(find(resolved.digest, run.request.store), key=lambda each: not each.trace)
    for first, second in combinations(builds, 2):
        if first.numeric_class == second.numeric_class and first.output != second.output:
            return first, second
    return None


def explain_stage(
    identity: StageId, run: Run, upstream: Mapping[str, Realisation], request: ExplainRequest
) -> Explanation | None:
    """None where there is nothing to explain: no two builds differ."""
    pair = pair_on_record(identity, run, upstream) if request.needs_pair else None
    step, why = _step(request, pair, run.request.store)
    if step is None:
        return Explanation(step=0, first=None, cause=why) if why else None
    counts = {} if request.needs_pair else counts_on_record(identity, run, upstream)
    if counts and step > _last(counts):
        cause = f"it has {_units(counts)}"
        return Explanation(step=step, first=None, cause=cause, no_such_step=True)
    trial = _Trial(identity=identity, run=run, upstream=upstream)
    if request.save is None and request.against is None:
        return explain(step, trial.recordings, trial.say)
    text = trial.record(step, None)
    if not text:
        return Explanation(step=step, first=None, cause=NOTHING_RECORDED, runs=1)
    if request.save is not None:
        request.save.write_bytes(text)
        cause = f"its operations are kept in {request.save}"
        return Explanation(step=step, first=None, cause=cause, runs=1)
    assert request.against is not None
    return compare_with(_parse(text), read_recordings(request.against))


def counts_on_record(
    identity: StageId, run: Run, upstream: Mapping[str, Realisation]
) -> dict[str, int]:
    """How many steps, rounds or fits builds of the stage had; empty where that is not known."""
    store, counts = run.request.store, dict[str, int]()
    for each in find(run.resolve(identity, upstream).digest, store):
        for unit, count in counted(store.root / each.trace).items() if each.trace else ():
            counts[unit] = max(count, counts.get(unit, 0))
    return counts


def _last(counts: Mapping[str, int]) -> int:
    """The last step that can be looked at: what comes after the training's last is one more."""
    return counts["step"] + 1 if "step" in counts else 0


def _units(counts: Mapping[str, int]) -> str:
    """`60 steps`"""
    words = " and ".join(f"{count:,} {unit}s" for unit, count in counts.items())
    return words if "step" in counts else f"{words}, and {ONLY_TORCH}"


def _step(request: ExplainRequest, pair: Pair | None, store: Store) -> tuple[int | None, str]:
    """Which step to look at, or why there is none."""
    if request.against is not None:
        return read_recordings(request.against)[0].step, ""
    if request.step is not None:
        return request.step, ""
    if pair is None:
        return None, ""
    compared = traces_of(*pair, store)
    if compared.difference is None:
        return None, compared.says
    if compared.difference.unit != "step":
        return None, f"{compared.says}; {ONLY_TORCH}"
    return max(1, compared.difference.step), ""


@dataclass(kw_only=True, slots=True)
class _Trial:
    """Runs the stage up to a step."""

    identity: StageId
    run: Run
    upstream: Mapping[str, Realisation]

    def say(self, text: str) -> None:
        self.run.request.observer.message(f"{self.identity}: {text}")

    def record(self, step: int, knob: str | None) -> bytes:
        resolved = self.run.resolve(self.identity, self.upstream)
        site = self.run.site(self.identity.recipe)
        with self.run.job(self.identity, resolved, self.upstream) as (job, _):
            return record_step(job, site, step, knob)

    def recordings(self, step: int, knob: str | None) -> tuple[Recording, ...]:
        return _parse(self.record(step, knob))


def _parse(text: bytes) -> tuple[Recording, ...]:
    """What a stage wrote; nothing where its own code wrote something else there."""
    try:
        return tuple(parse_recordings(text.decode().splitlines()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()
