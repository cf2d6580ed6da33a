"""A lock without what nothing in it names any more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from modelbuild.spec.lock import Lock
from modelbuild.spec.probes import Probes


def tidy(lock: Lock) -> Lock:
    """Without environments and classes that nothing names, and without their probes."""
    used = {recipe.environment for recipe in lock.recipes.values()}
    named = {
        numeric_class
        for recipe in lock.recipes.values()
        for stage in recipe.stages.values()
        for numeric_class in stage.classes
    }
    return replace(
        lock,
        environments={key: value for key, value in lock.environments.items() if key in used},
        classes={key: value for key, value in lock.classes.items() if key in named},
        probes=dict(_used_probes(lock, named, used)),
    )


def _used_probes(
    lock: Lock, classes: set[str], environments: set[str]
) -> Iterator[tuple[str, dict[str, Probes]]]:
    for key in classes.intersection(lock.probes):
        runs = lock.probes[key].items()
        kept = {name: each for name, each in runs if name.partition("-")[0] in environments}
        if kept:
            yield key, kept
