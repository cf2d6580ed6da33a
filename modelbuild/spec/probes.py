"""What probe operations gave on a machine: evidence beside its numeric class, never part of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from modelbuild.spec.canonical import canonical_digest
from modelbuild.spec.recipe import Device, Recipe
from modelbuild.spec.variables import stage_variables

SETTINGS_DIGITS = 12
SHORT_DIGITS = 4
"""Of the digest of one operation, in the lock: enough to name the one that differs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeRun:
    """Under what the probes of a recipe run: seed and allowed operations do not matter."""

    name: str
    """Environment, instruction set, threads and device, for people."""
    settings: str
    """Digest of the bootstrap and of all variables. Probes of other settings say nothing."""
    variables: Mapping[str, str]


def probe_run(recipe: Recipe, environment: str, runtime: str) -> ProbeRun:
    """`environment` is its key in the lock, `runtime` the locked bootstrap."""
    hardware, tf32 = recipe.hardware, recipe.determinism.tf32
    parts = [environment, hardware.cpu, hardware.threads]
    variables = stage_variables(hardware, replace(recipe.determinism, seed=0, allow=()))
    digest = canonical_digest({"runtime": runtime, "variables": variables})
    return ProbeRun(
        name=run_name(parts, hardware.device, tf32),
        settings=digest.hex[:SETTINGS_DIGITS],
        variables=variables,
    )


def run_name(parts: Sequence[object], device: str, tf32: str) -> str:
    """`parts` are the environment's key, the instruction set and the number of threads."""
    end = [] if device != Device.CUDA else ["cuda"] if tf32 == "script" else ["cuda", "no-tf32"]
    return "-".join(map(str, [*parts, *end]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Probes:
    """What they gave, in the short form of the lock."""

    settings: str
    digest: str
    """Over all of them."""
    operations: Mapping[str, str]
    """The first digits of what each gave."""
    threads: Mapping[str, int] = field(default_factory=dict)
    """As each library counts them."""

    def differing(self, other: Probes) -> tuple[str, ...]:
        """The operations that gave other bits, or were there only once; both of one settings."""
        if self.digest == other.digest:
            return ()
        names = sorted({*self.operations, *other.operations})
        found = [n for n in names if self.operations.get(n) != other.operations.get(n)]
        return tuple(found) or ("one that the lock does not tell",)


def short_probes(settings: str, digests: Mapping[str, str], threads: Mapping[str, int]) -> Probes:
    """From the whole digests."""
    return Probes(
        settings=settings,
        digest=canonical_digest(dict(digests)).hex[:SETTINGS_DIGITS],
        operations={name: digest[:SHORT_DIGITS] for name, digest in sorted(digests.items())},
        threads=dict(sorted(threads.items())),
    )
