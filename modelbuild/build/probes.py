"""Probe the numerics of a machine: once for each environment and settings, kept in the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.build.trace import ask
from modelbuild.errors import NotReproducibleError
from modelbuild.sandbox.gpus import Gpu
from modelbuild.sandbox.lease import leased_gpus
from modelbuild.spec.lock import Lock
from modelbuild.spec.probes import ProbeRun, Probes, short_probes
from modelbuild.spec.recipe import Hardware
from modelbuild.store.store import Store

if TYPE_CHECKING:
    from modelbuild.build.stage import Site

_BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Names a machine until it starts anew: with other microcode, perhaps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probed:
    """The probes of this machine, and those that the lock has of its class."""

    run: ProbeRun
    numeric_class: str
    here: Probes
    locked: Probes | None
    evidence: Path
    """All that the probes gave here."""
    runs: int = 1
    """In how many runs, each in a new process, a difference was seen to stay."""

    @property
    def differing(self) -> tuple[str, ...]:
        """The operations that gave other bits than the lock says of the same class: a fault."""
        return self.here.differing(self.locked) if self.locked else ()

    @property
    def miscounted(self) -> dict[str, int]:
        """Libraries that would use another number of threads than the recipe's."""
        wanted = int(self.run.variables["MODELBUILD_THREADS"])
        return {name: count for name, count in self.here.threads.items() if count != wanted}


def probe(
    site: Site, hardware: Hardware, run: ProbeRun, lock: Lock, say: Callable[[str], None]
) -> Probed | None:
    """The probes of this machine, run if they were not since it started.

    A difference from the lock is probed again, whether it was seen now or is on record: a library
    whose arithmetic has a race comes out differently at times, which says nothing of a machine.
    None, and a message, where they can't be run: they are evidence, and no build waits for them.
    """
    store, key = site.store, site.numeric_class.key
    path = store.root / _folder(key, run) / f"{_boot()}.json"

    def waiting(holder: str) -> None:
        say(f"waiting for {holder}, which probes the numerics of this machine")

    def ask() -> bytes | None:
        with leased_gpus(hardware, lambda what: say(f"waiting for {what}")) as gpus:
            document, complaint = _run(site, hardware, run, gpus)
        if document is None:
            say(f"the numerics of this machine can't be probed: {complaint}")
        return document

    locked, runs = comparable(lock.probes.get(key, {}), run), 1
    with store.lock(f"probes-{key}-{run.name}-{run.settings}", waiting):
        if not path.exists():
            say("probing the numerics of this machine with this environment")
            document = ask()
            if document is None:
                return None
            store.write_file(str(path.relative_to(store.root)), document)
        here = _read(path, run)
        if here and locked and here.differing(locked):
            from modelbuild.build.probed_again import probe_again

            document, runs = probe_again(path.read_bytes(), locked, run, ask, say)
            store.write_file(str(path.relative_to(store.root)), document)
            here = _read(path, run)
    if here is None:
        say(f"a damaged record of probes is not used: {path}")
        return None
    return Probed(run=run, numeric_class=key, here=here, locked=locked, evidence=path, runs=runs)


def comparable(probes: Mapping[str, Probes], run: ProbeRun) -> Probes | None:
    """Those of a class in the lock, if they ran with the same settings."""
    found = probes.get(run.name)
    return found if found and found.settings == run.settings else None


def probes_of(numeric_class: str, run: ProbeRun, lock: Lock, store: Store) -> Probes | None:
    """What lock or store have of a class."""
    locked = comparable(lock.probes.get(numeric_class, {}), run)
    return locked or kept_probes(numeric_class, run, store)


def kept_probes(numeric_class: str, run: ProbeRun, store: Store) -> Probes | None:
    """What the store has of a class, of whichever machine."""
    for path in sorted((store.root / _folder(numeric_class, run)).glob("*.json")):
        found = _read(path, run)
        if found:
            return found
    return None


def _folder(numeric_class: str, run: ProbeRun) -> str:
    return f"probes/{numeric_class}/{run.name}-{run.settings}"


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return "unknown"


def _run(
    site: Site, hardware: Hardware, run: ProbeRun, gpus: Sequence[Gpu]
) -> tuple[bytes | None, str]:
    """What the probes wrote, or what they printed instead."""
    from modelbuild.sandbox.isolation import Command, Mounts

    printed: list[bytes] = []
    command = Command(
        argv=["python", "/build/runtime/probes.py"],
        environment=run.variables,
        threads=hardware.threads,
        gpus=gpus,
    )
    with site.store.temporary("probes") as folder:
        for name in ("src", "out"):
            (folder / name).mkdir()
        (folder / "context.json").write_text("{}\n")
        ask(folder / "trace", {})
        mounts = Mounts(
            src=folder / "src",
            environment=site.environment,
            interpreter=site.interpreter.path,
            runtime=site.runtime,
            out=folder / "out",
            trace=folder / "trace",
            context=folder / "context.json",
        )
        outcome = site.sandbox.run(mounts, command, printed.append)
        result = folder / "out" / "probes.json"
        if outcome.exit_code == 0 and result.is_file():
            return result.read_bytes(), ""
    lines = b"".join(printed).decode(errors="replace").splitlines()
    return None, lines[-1] if lines else f"exit code {outcome.exit_code}"


def _read(path: Path, run: ProbeRun) -> Probes | None:
    try:
        document = json.loads(path.read_bytes())
        return short_probes(run.settings, document["probes"], document["threads"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def complaints(probed: Probed) -> Iterator[str]:
    """What a person should know before anything is built on this machine."""
    wanted = probed.run.variables["MODELBUILD_THREADS"]
    for library, count in probed.miscounted.items():
        yield f"with threads = {wanted}, {library} would use {count}"
    if probed.differing:
        yield str(probes_differ(probed))


def probes_differ(probed: Probed) -> NotReproducibleError:
    """Of one class, but other bits: the class lacks a fact, or the machine computes wrongly."""
    return NotReproducibleError(
        f"this machine computes other bits than model.lock says of its numeric class"
        f" ({probed.numeric_class})",
        facts=[
            ("operations", ", ".join(probed.differing)),
            ("runs", f"{probed.runs}, each in a new process"),
            ("settings", probed.run.name),
            ("evidence", str(probed.evidence)),
        ],
        hint="Something that is not in the class changes its results: microcode, an emulator, a"
        " hypervisor,\na library of the host, faulty hardware. Trainings may come out different"
        " here. Please report it.\nTo see whether they do: modelbuild verify --rebuild, here and"
        " on another machine of this class.\nOnly if other machines compute what this one does is"
        f" model.lock wrong: then delete the line\n'{probed.run.name}' below"
        f" [probes.{probed.numeric_class}].",
    )
