"""Everything that was built here, latest first, with what went into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from modelbuild.errors import UsageError
from modelbuild.spec.canonical import Json
from modelbuild.store.derivations import find_derivation
from modelbuild.store.realisations import Realisation, find_all
from modelbuild.store.store import Store

SHORT = 10
"""Digits of a run's name: a prefix of its resolved derivation's digest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One build of one stage."""

    realisation: Realisation
    built: datetime
    inputs: Mapping[str, Json]
    """Fields of its derivation; empty where that is not in the store."""

    @property
    def id(self) -> str:
        return self.realisation.resolved.hex[:SHORT]

    @property
    def settings(self) -> dict[str, Json]:
        """What an author varies: parameters, seed, threads and instruction set."""
        params, hardware = self.inputs.get("params"), self.inputs.get("hardware")
        found: dict[str, Json] = dict(params) if isinstance(params, Mapping) else {}
        if "seed" in self.inputs:
            found["seed"] = self.inputs["seed"]
        if isinstance(hardware, Mapping):
            found |= {f"hardware.{name}": hardware[name] for name in ("threads", "cpu")}
        return found


def runs(store: Store, recipe: str | None = None, stage: str | None = None) -> list[Run]:
    """Of all recipes, or of one, or of one of its stages; latest first."""
    found = []
    for realisation, written in find_all(store):
        name, _, own = realisation.name.partition(":")
        if recipe not in (None, name) or stage not in (None, own):
            continue
        derivation = find_derivation(realisation.resolved, store)
        found.append(
            Run(
                realisation=realisation,
                built=datetime.fromtimestamp(written, UTC),
                inputs=derivation.fields if derivation else {},
            )
        )
    return sorted(found, key=lambda run: (run.built, run.realisation.name), reverse=True)


def run_named(prefix: str, store: Store) -> Run:
    """The latest run whose id, or whose output's digest, begins so. Raises UsageError."""
    wanted = prefix.removeprefix("b3:")
    found = [
        run
        for run in runs(store)
        if run.realisation.resolved.hex.startswith(wanted)
        or run.realisation.output.hex.startswith(wanted)
    ]
    if len(wanted) < 4 or not found:
        raise UsageError(
            f"no run is named '{prefix}'", hint="To list what was built here: modelbuild runs"
        )
    several = sorted({f"{run.id} {run.realisation.name}" for run in found})
    if len(several) > 1 and len({run.realisation.output for run in found}) > 1:
        raise UsageError(
            f"several runs are named '{prefix}...'", facts=[("found", ", ".join(several))]
        )
    return found[0]


def varying(found: Sequence[Run]) -> list[str]:
    """The settings in which runs of one stage are not all the same, sorted."""
    values: dict[tuple[str, str], set[str]] = {}
    for run in found:
        for name, value in run.settings.items():
            values.setdefault((run.realisation.name, name), set()).add(repr(value))
    return sorted({name for (_, name), each in values.items() if len(each) > 1})
