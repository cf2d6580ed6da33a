"""`[probes.CLASS]` of the lock: a line for each environment and its settings."""

from __future__ import annotations

from collections.abc import Mapping

from modelbuild.spec import lock_values as values
from modelbuild.spec.canonical import Json
from modelbuild.spec.lock_values import Table
from modelbuild.spec.probes import Probes
from modelbuild.spec.toml_text import toml_table


def probe_lines(numeric_class: str, probes: Mapping[str, Probes]) -> list[str]:
    entries: dict[str, Json] = {
        name: {
            "settings": each.settings,
            "digest": each.digest,
            "threads": _listed(each.threads),
            "operations": _listed(each.operations),
        }
        for name, each in sorted(probes.items())
    }
    return toml_table(["probes", numeric_class], entries)


def read_probes(table: Table) -> dict[str, Probes]:
    if not table.content:
        raise table.error(None, "a table without entries")
    return {name: _probes(each) for name, each in table.every()}


def _probes(table: Table) -> Probes:
    threads = table.take("threads", _pairs)
    probes = Probes(
        settings=table.take("settings", values.string),
        digest=table.take("digest", values.string),
        operations=table.take("operations", _pairs),
        threads={name: int(count) for name, count in threads.items()},
    )
    table.finish()
    return probes


def _listed(items: Mapping[str, str] | Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(items.items()))


def _pairs(value: object) -> dict[str, str]:
    words = [pair.split(" ") for pair in values.string(value).split(", ")]
    if any(len(pair) != 2 for pair in words):
        raise ValueError("names, each with a value, separated by commas")
    return {pair[0]: pair[1] for pair in words}
