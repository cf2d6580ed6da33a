"""Probe again where a probe differs from the lock: a race in a library is no fault of a machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from modelbuild.spec.probes import SHORT_DIGITS, ProbeRun, Probes, short_probes

AGAIN = 2
"""How often a difference is probed again, each time in a new process."""


def probe_again(
    first: bytes,
    locked: Probes,
    run: ProbeRun,
    ask: Callable[[], bytes | None],
    say: Callable[[str], None],
) -> tuple[bytes, int]:
    """The record to keep of `first`, which differs from the lock, and of how many runs it is.

    `ask` runs the probes once more, None where they can't be run. It is asked until a run agrees
    with the lock, twice at most.
    """
    documents = [json.loads(first)]
    before = _short(documents[0]["probes"], documents[0], run).differing(locked)
    say(f"probing again: {', '.join(before)} gave other bits than model.lock says")
    for _ in range(AGAIN):
        found = ask()
        if found is None:
            break
        documents.append(json.loads(found))
        if not _short(documents[-1]["probes"], documents[-1], run).differing(locked):
            break
    runs = [each["probes"] for each in documents]
    kept = settled(runs, locked)
    after = _short(kept, documents[-1], run).differing(locked)
    differed = {name: [each.get(name) for each in runs] for name in sorted(_unequal(runs))}
    once = [name for name in differed if name not in after]
    if once:
        say(
            f"{', '.join(once)} came out differently once in {len(runs)} runs of the probes on this"
            " machine (an arithmetic race): what agrees with model.lock is kept"
        )
    return json.dumps({**documents[-1], "probes": kept, "differed": differed}).encode(), len(runs)


def settled(runs: Sequence[Mapping[str, str]], locked: Probes) -> dict[str, str]:
    """Each operation as it came out in a run that agrees with the lock, else as it did last."""
    kept: dict[str, str] = {}
    for name in sorted({name for each in runs for name in each}):
        found = [each.get(name) for each in reversed(runs)]
        wanted = locked.operations.get(name)
        value = next((each for each in found if _digits(each) == wanted), found[0])
        if value is not None:
            kept[name] = value
    return kept


def _digits(digest: str | None) -> str | None:
    return digest and digest[:SHORT_DIGITS]


def _unequal(runs: Sequence[Mapping[str, str]]) -> set[str]:
    names = {name for each in runs for name in each}
    return {name for name in names if len({each.get(name) for each in runs}) > 1}


def _short(
    digests: Mapping[str, str], document: Mapping[str, Mapping[str, int]], run: ProbeRun
) -> Probes:
    return short_probes(run.settings, digests, document["threads"])
