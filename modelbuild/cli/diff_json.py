"""The documented record of `modelbuild diff --json`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from modelbuild.review.changes import Change
from modelbuild.review.difference import LockDifference, RecipeDifference, StageDifference
from modelbuild.review.packages import Package, PackageChange
from modelbuild.review.probes import ProbeChange
from modelbuild.spec.lock import Claim, LockedData, LockedFile, LockedWheel
from modelbuild.spec.probes import Probes

T = TypeVar("T")


def to_json(difference: LockDifference) -> dict[str, object]:
    return {
        "recipes": {recipe.name: recipe_json(recipe) for recipe in difference.recipes},
        "unchanged": list(difference.unchanged),
        "alarms": list(difference.alarms),
        "probes": [probe_json(each) for each in difference.probes],
    }


def probe_json(change: ProbeChange) -> dict[str, object]:
    return {
        "class": change.numeric_class,
        "run": change.run,
        "kind": str(change.kind),
        "recipes": list(change.recipes),
        "operations": list(change.operations),
        "old": _probes(change.old),
        "new": _probes(change.new),
    }


def _probes(probes: Probes | None) -> dict[str, object] | None:
    return {"settings": probes.settings, "digest": probes.digest} if probes else None


def recipe_json(recipe: RecipeDifference) -> dict[str, object]:
    return {
        "kind": recipe.kind,
        "stages": {stage.name: _stage(stage) for stage in recipe.stages},
        "params": _changes(recipe.params, lambda value: value),
        "settings": _changes(recipe.settings, lambda value: value),
        "data": _changes(recipe.data, _data),
        "code": _changes(recipe.code, _file),
        "requires": {
            "added": [each.new for each in recipe.requires if each.new is not None],
            "removed": [each.old for each in recipe.requires if each.old is not None],
        },
        "packages": {each.name: _package(each) for each in recipe.packages},
    }


def _stage(stage: StageDifference) -> dict[str, object]:
    return {
        "kind": stage.kind,
        "reasons": list(stage.reasons),
        "claim": str(stage.state) if stage.state else None,
        "old": _claim(stage.old),
        "new": _claim(stage.new),
        "metrics": _changes(stage.metrics, lambda value: value),
        "noise": dict(stage.noise),
    }


def _changes(
    changes: Iterable[Change[T]], to_value: Callable[[T], object]
) -> dict[str, dict[str, object]]:
    return {
        change.name: {
            "old": None if change.old is None else to_value(change.old),
            "new": None if change.new is None else to_value(change.new),
        }
        for change in changes
    }


def _claim(claim: Claim | None) -> dict[str, object] | None:
    if claim is None:
        return None
    return {
        "class": claim.numeric_class,
        "derivation": str(claim.derivation),
        "output": str(claim.output),
        "bytes": claim.bytes,
        "parameters": claim.parameters,
    }


def _data(data: LockedData) -> dict[str, object]:
    return {
        "digest": str(data.digest),
        "files": data.files,
        "bytes": data.bytes,
        "rows": data.rows,
        "columns": None if data.columns is None else list(data.columns),
        "resolved": data.resolved,
    }


def _file(file: LockedFile) -> dict[str, object]:
    return {"digest": str(file.digest), "lines": file.lines, "executable": file.executable}


def _package(change: PackageChange) -> dict[str, object]:
    return {"kind": change.kind, "old": _side(change.old), "new": _side(change.new)}


def _side(package: Package | None) -> dict[str, object] | None:
    if package is None:
        return None
    content: dict[str, object] = (
        {"file": package.filename, "sha256": package.sha256}
        if isinstance(package, LockedWheel)
        else {"digest": str(package.digest)}
    )
    return {
        "version": package.version,
        **content,
        "bytes": package.bytes,
        "licence": package.licence,
    }
