"""Why two runs of a training went apart: run up to the step again, then turn one knob at a time.

1. Run twice up to the first different step and record its operations. A race may take more runs to
   show again, and may not show at all; that is said.
2. The first operation at which the two recordings differ names the line. Where it only reads what
   differs already, the step before is looked at too: not all of a model is digested in every step.
3. What is likely to be the cause is tried: a pair of runs with one knob turned. Where the
   difference is gone, a second pair with the knob and a second one without it decide whether the
   cause is confirmed, or only likely.

These runs are no builds: nothing of them is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from modelbuild.spec.canonical import Json
from modelbuild.verify.first_operation import FirstOperation, Kind, first_difference
from modelbuild.verify.recordings import Recording

Recordings = Sequence[Recording]
"""Of one run: one of each process that trains, in the order of their places."""
Run = Callable[[int, str | None], Recordings]
"""Runs up to a step with a knob turned, or none; gives nothing where the run failed."""

NOTHING_RECORDED = "the run recorded nothing: it failed, or has no such step"
MOST_RUNS_TO_SHOW = 6
MOST_STEPS_BACK = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Knob:
    """One thing that a run can do without, and what it means if the difference goes with it."""

    name: str
    vanishes: str
    cause: str


KNOBS = {
    knob.name: knob
    for knob in (
        Knob(name="threads", vanishes="with one thread", cause="a race between threads"),
        Knob(
            name="deterministic",
            vanishes="with deterministic algorithms",
            cause="an algorithm that is not deterministic",
        ),
        Knob(
            name="memory",
            vanishes="when new memory is filled",
            cause="memory is read that nothing has filled",
        ),
        Knob(name="clock", vanishes="when the clock is frozen", cause="the clock"),
        Knob(
            name="workers",
            vanishes="without DataLoader workers",
            cause="the DataLoader's worker processes",
        ),
        Knob(
            name="listings",
            vanishes="when all listings of folders are sorted",
            cause="the order in which a folder is listed",
        ),
    )
}

_BY_WHAT = {
    "result": ("threads", "deterministic", "memory"),
    "batch": ("workers", "clock", "listings", "threads"),
    "listing": ("listings",),
    "random numbers": ("clock", "workers", "listings"),
    "uninitialised memory": ("memory",),
    "constant": ("clock", "threads"),
    "from outside": ("clock", "memory", "listings", "threads"),
    "operations": ("clock", "threads", "listings"),
}
"""Which knobs are tried for what differs, the likeliest first."""

_LIKELY = {
    "result": "the operation gives other results for the same inputs",
    "batch": "the data came in another order, or was changed on its way",
    "listing": "the order in which a folder is listed",
    "random numbers": "random numbers",
    "uninitialised memory": "memory is read that nothing has filled",
    "constant": "a number that the script computed",
    "from outside": "something that the script computed without torch",
    "operations": "a branch that the script took in one run only",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    step: int
    first: FirstOperation | None
    """None where the difference did not show again, or could not be looked for."""
    cause: str
    confirmed: bool = False
    knob: str | None = None
    tried: tuple[str, ...] = ()
    """Knobs with which the difference stayed."""
    runs: int = 0
    no_such_step: bool = False
    """Builds on record tell that the training has no such step: nothing was run."""

    def __str__(self) -> str:
        if self.first is None:
            return (
                f"step {self.step}: {self.cause}" if self.step else f"not explained: {self.cause}"
            )
        return f"{self.first}   {'confirmed' if self.confirmed else 'likely'}: {self.cause}"

    def to_json(self) -> dict[str, Json]:
        first = self.first
        return {
            "step": self.step,
            "operation": first.operation if first else None,
            "line": first.line if first else None,
            "phase": first.phase if first else None,
            "what": first.what if first else None,
            "detail": first.detail if first else None,
            "cause": self.cause,
            "confirmed": self.confirmed,
            "knob": self.knob,
            "tried": list(self.tried),
            "runs": self.runs,
        }


@dataclass(kw_only=True, slots=True)
class Search:
    """The runs made so far."""

    step: int
    run: Run
    say: Callable[[str], None]
    runs: int = 0
    tried: list[str] = field(default_factory=list)

    def record(self, knob: str | None = None) -> Recordings:
        self.runs += 1
        turned = f", {KNOBS[knob].vanishes}" if knob else ""
        self.say(f"run {self.runs} up to step {self.step}{turned}")
        return self.run(self.step, knob)

    def shows(self, knob: str | None = None) -> bool | None:
        """Whether a pair of runs differs; None where a run failed."""
        one, other = self.record(knob), self.record(knob)
        if not one or not other:
            return None
        return first_of(one, other) is not None

    def explained(
        self, first: FirstOperation | None, cause: str, knob: str | None = None, sure: bool = False
    ) -> Explanation:
        return Explanation(
            step=self.step,
            first=first,
            cause=cause,
            confirmed=sure,
            knob=knob,
            tried=tuple(self.tried),
            runs=self.runs,
        )


def explain(step: int, run: Run, say: Callable[[str], None]) -> Explanation:
    """Find the operation of a step at which two runs go apart, and the cause."""
    search = Search(step=step, run=run, say=say)
    one = search.record()
    if not one:
        return search.explained(None, NOTHING_RECORDED)
    first = locate(search, one)
    if first is None:
        return search.explained(
            None,
            f"the difference did not show again in {search.runs} runs: a rare race, or something"
            " that differed between the two builds",
        )
    return _try_knobs(search, first, threads=max(each.threads for each in one))


def locate(search: Search, one: Recordings) -> FirstOperation | None:
    """Run until a recording differs from this one, a few times, and look where that began."""
    while search.runs < MOST_RUNS_TO_SHOW:
        if first := first_of(one, search.record()):
            return _further_back(search, first)
    return None


def _further_back(search: Search, first: FirstOperation) -> FirstOperation:
    """The difference of an earlier step, where this one only reads what differs already."""
    for _ in range(MOST_STEPS_BACK):
        if first.what not in ("from outside", "random numbers") or search.step == 1:
            break
        search.step -= 1
        earlier = first_of(search.record(), search.record())
        if earlier is None:
            search.step += 1
            break
        first = earlier
    return first


def _try_knobs(search: Search, first: FirstOperation, *, threads: int) -> Explanation:
    for name in hypotheses(first, threads=threads):
        if search.shows(name) is not False:
            search.tried.append(name)
            continue
        knob = KNOBS[name]
        sure = search.shows(name) is False and search.shows() is True
        return search.explained(first, f"the difference vanishes {knob.vanishes}", name, sure)
    return search.explained(first, likely_cause(first))


def compare_with(mine: Recordings, theirs: Recordings) -> Explanation:
    """Hold a recording made here against one made elsewhere; no knob can be turned there."""
    step = mine[0].step if mine else 0
    if not mine:
        return Explanation(
            step=step,
            first=None,
            cause=NOTHING_RECORDED,
            runs=1,
        )
    first = first_of(mine, theirs)
    if first is None:
        return Explanation(step=step, first=None, cause="the two recordings agree", runs=1)
    cause = likely_cause(first)
    threads = mine[0].threads, theirs[0].threads
    if first.kind is Kind.RESULT and threads[0] != threads[1]:
        cause = f"{threads[0]} threads here, {threads[1]} there"
    return Explanation(step=step, first=first, cause=cause, runs=1)


def first_of(one: Recordings, other: Recordings) -> FirstOperation | None:
    """The first difference of the first process that has one."""
    pairs = zip(one, other, strict=False)
    return next((found for each in pairs if (found := first_difference(*each))), None)


def hypotheses(first: FirstOperation, *, threads: int) -> list[str]:
    """The knobs to turn, in their order."""
    return [name for name in _BY_WHAT[first.what] if name != "threads" or threads > 1]


def likely_cause(first: FirstOperation) -> str:
    cause = _LIKELY[first.what]
    if first.what == "operations" and first.clock:
        cause += f"; before it, the script read the clock ({first.clock})"
    return cause
