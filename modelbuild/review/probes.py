"""What changed in the probes beside a numeric class: whether the same machine computes the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from modelbuild.spec.lock import Lock, LockedRecipe
from modelbuild.spec.probes import Probes, run_name

_NAMED = 12
"""Operations that are named where many differ."""


class ProbeKind(StrEnum):
    OTHER_BITS = "other bits"
    """With the same settings: the same machine facts, other arithmetic."""
    EDITED = "edited"
    """Other content under the same digest."""
    GONE = "gone"
    """Though the lock still names their class and their environment."""
    OTHER_SETTINGS = "other settings"
    """The bootstrap moved: not to be compared."""
    NEW = "new"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeChange:
    """The probes of one class under one environment and its settings, before and after."""

    numeric_class: str
    run: str
    """Environment, instruction set, threads and device: the name of the line in the lock."""
    kind: ProbeKind
    recipes: tuple[str, ...]
    """Those that are built so, in either lock."""
    operations: tuple[str, ...] = ()
    """That gave other bits, where the settings are the same."""
    old: Probes | None
    new: Probes | None

    @property
    def is_alarm(self) -> bool:
        """Whether no build does that: it never replaces or removes the probes of a class."""
        return self.kind in (ProbeKind.OTHER_BITS, ProbeKind.EDITED, ProbeKind.GONE)

    @property
    def says(self) -> str:
        if self.kind is ProbeKind.OTHER_BITS:
            named = listed(self.operations)
            return f"numeric class {self.numeric_class} gives other bits ({named})"
        return f"probes of numeric class {self.numeric_class}: {self.kind}"


def compare_probes(old: Lock, new: Lock) -> tuple[ProbeChange, ...]:
    """What asks for a look comes first. Probes that went with their class are no change."""
    return tuple(sorted(_changes(old, new), key=lambda each: not each.is_alarm))


def probe_alarms(changes: Iterable[ProbeChange]) -> Iterator[str]:
    """One for what several recipes share."""
    grouped: dict[tuple[str, ProbeKind, tuple[str, ...]], list[ProbeChange]] = {}
    for each in changes:
        if each.is_alarm:
            grouped.setdefault((each.numeric_class, each.kind, each.operations), []).append(each)
    for (key, kind, operations), group in grouped.items():
        recipes = sorted({name for each in group for name in each.recipes})
        whose = ", ".join(recipes or [each.run for each in group])
        if kind is ProbeKind.OTHER_BITS:
            yield (
                f"numeric class {key} gives other bits than it did: same machine facts and"
                f" settings, other arithmetic in {listed(operations)} (probes of {whose})"
            )
        elif kind is ProbeKind.EDITED:
            yield (
                f"the probes of {whose} on numeric class {key} were edited: the same digest has"
                " other content"
            )
        else:
            yield (
                f"the probes of {whose} on numeric class {key} are gone, and its claims are not:"
                " other arithmetic would pass unseen"
            )


def listed(operations: Sequence[str]) -> str:
    """`erf, lstm`; of many the first."""
    shown = ", ".join(operations[:_NAMED])
    more = len(operations) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _changes(old: Lock, new: Lock) -> Iterator[ProbeChange]:
    used = {recipe.environment for recipe in new.recipes.values()}
    for key in sorted({*old.probes, *new.probes}):
        before, after = old.probes.get(key, {}), new.probes.get(key, {})
        for run in sorted({*before, *after}):
            was, now = before.get(run), after.get(run)
            unneeded = key not in new.classes or run.partition("-")[0] not in used
            if was == now or (now is None and unneeded):
                continue
            kind = _kind(was, now)
            compared = was and now and kind is ProbeKind.OTHER_BITS
            yield ProbeChange(
                numeric_class=key,
                run=run,
                kind=kind,
                recipes=tuple(sorted(_recipes(key, run, old) | _recipes(key, run, new))),
                operations=was.differing(now) if compared and was and now else (),
                old=was,
                new=now,
            )


def _kind(old: Probes | None, new: Probes | None) -> ProbeKind:
    if old is None:
        return ProbeKind.NEW
    if new is None:
        return ProbeKind.GONE
    if old.settings != new.settings:
        return ProbeKind.OTHER_SETTINGS
    return ProbeKind.EDITED if old.digest == new.digest else ProbeKind.OTHER_BITS


def _recipes(numeric_class: str, run: str, lock: Lock) -> set[str]:
    return {
        name
        for name, recipe in lock.recipes.items()
        if _runs_as(recipe, run)
        and any(numeric_class in stage.classes for stage in recipe.stages.values())
    }


def _runs_as(recipe: LockedRecipe, run: str) -> bool:
    hardware = recipe.hardware
    parts = (recipe.environment, hardware.get("cpu"), hardware.get("threads"))
    return run == run_name(parts, str(hardware.get("device")), recipe.tf32)
