"""Realisations: the records of what was built, one plain JSON file each.

A record is found by the resolved derivation; there may be several, of other numeric classes,
isolation levels or, where a build did not reproduce, other outputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelbuild.errors import DigestMismatchError
from modelbuild.spec.canonical import Json, canonical_digest
from modelbuild.spec.digest import Digest
from modelbuild.store.stat_cache import StatCache
from modelbuild.store.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What the whole process tree of a stage used."""

    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Realisation:
    """That this resolved derivation gave this output here."""

    name: str
    """`recipe:stage`, for people: another recipe may have the same derivation."""
    derivation: Digest
    resolved: Digest
    output: Digest
    files: int
    bytes: int
    parameters: int | None
    """Elements of the model's floating-point tensors, where a file of it could be read."""
    metrics: Mapping[str, float]
    isolation: str
    numeric_class: str
    facts: Mapping[str, str]
    """Of the numeric class."""
    resources: Resources
    log: str
    """Path of the log, relative to the store."""
    interpreter: str
    builder: str
    """Version of modelbuild."""
    notes: tuple[str, ...] = field(default=())
    """What the reader of this record should know, such as processes that were left running."""
    trace: str | None = None
    """Path of the folder with what was recorded of the training, relative to the store."""

    def path(self, store: Store) -> Path:
        """Of the output."""
        return store.path(self.output, self.name.replace(":", "-"))


def record(realisation: Realisation, store: Store) -> None:
    """Write the record. The same result on the same class and isolation replaces its record."""
    fields = _to_json(realisation)
    text = json.dumps({"record": fields, "digest": str(canonical_digest(fields))}, indent=1)
    name = f"{realisation.output.hex[:16]}-{realisation.numeric_class}-{realisation.isolation}"
    store.write_file(f"{_folder(realisation.resolved)}/{name}.json", (text + "\n").encode())


def find(
    resolved: Digest, store: Store, on_damaged: Callable[[Path], None] = lambda _: None
) -> list[Realisation]:
    """Every record of a resolved derivation whose output is in the store, sorted by file name."""
    return [each for each in recorded(resolved, store, on_damaged) if each.path(store).exists()]


def recorded(
    resolved: Digest, store: Store, on_damaged: Callable[[Path], None] = lambda _: None
) -> list[Realisation]:
    """Every record of a resolved derivation, sorted by file name, its output here or not.

    A record that is truncated or altered counts as absent; it stays where it is, and
    `on_damaged` hears of it.
    """
    folder = store.root / _folder(resolved)
    try:
        files = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    found = []
    for file in files:
        if file.suffix != ".json" or file.name.startswith("."):
            continue
        realisation = _read(file)
        if realisation is None:
            on_damaged(file)
        else:
            found.append(realisation)
    return found


def find_all(store: Store) -> Iterator[tuple[Realisation, float]]:
    """Every record with the time when it was written, in seconds since 1970; in no order.

    Of outputs that are no longer in the store too. Damaged records are passed over.
    """
    for file in (store.root / "realisations").glob("*/*.json"):
        realisation = None if file.name.startswith(".") else _read(file)
        if realisation is not None:
            yield realisation, file.stat().st_mtime


def check_intact(realisation: Realisation, store: Store, cache: StatCache) -> None:
    """Raise DigestMismatchError if the output is not what was recorded."""
    path = realisation.path(store)
    found = cache.tree(path).digest
    if found != realisation.output:
        raise altered(realisation, found, path)


def altered(realisation: Realisation, found: Digest, path: Path) -> DigestMismatchError:
    recipe = realisation.name.partition(":")[0]
    return DigestMismatchError(
        f"digest mismatch in the store: the output of {realisation.name} was altered",
        facts=[
            ("recorded", str(realisation.output)),
            ("found", str(found)),
            ("path", str(path)),
        ],
        hint=f"To set it aside and build it again: modelbuild verify --rebuild {recipe}",
    )


def _folder(resolved: Digest) -> str:
    return f"realisations/{resolved.store_key}"


def _read(file: Path) -> Realisation | None:
    try:
        document = json.loads(file.read_bytes())
        fields = document["record"]
        if document["digest"] != str(canonical_digest(fields)):
            return None
        return _from_json(fields)
    except (ValueError, KeyError, TypeError):
        return None


def _to_json(realisation: Realisation) -> dict[str, Json]:
    resources = realisation.resources
    return {
        "name": realisation.name,
        "derivation": str(realisation.derivation),
        "resolved": str(realisation.resolved),
        "output": str(realisation.output),
        "files": realisation.files,
        "bytes": realisation.bytes,
        "parameters": realisation.parameters,
        "metrics": dict(realisation.metrics),
        "isolation": realisation.isolation,
        "numeric_class": realisation.numeric_class,
        "facts": dict(realisation.facts),
        "resources": {
            "wall_seconds": resources.wall_seconds,
            "cpu_seconds": resources.cpu_seconds,
            "peak_memory_bytes": resources.peak_memory_bytes,
        },
        "log": realisation.log,
        "interpreter": realisation.interpreter,
        "builder": realisation.builder,
        "notes": list(realisation.notes),
        "trace": realisation.trace,
    }


def _from_json(fields: dict[str, Json]) -> Realisation:
    values: dict[str, object] = dict(fields)
    for name in ("derivation", "resolved", "output"):
        values[name] = Digest.parse(str(fields[name]))
    resources = fields["resources"]
    notes = fields["notes"]
    if not isinstance(resources, dict) or not isinstance(notes, list):
        raise TypeError("not a realisation")
    values["resources"] = Resources(**resources)
    values["notes"] = tuple(notes)
    return Realisation(**values)  # type: ignore[arg-type] # checked by the record's digest
