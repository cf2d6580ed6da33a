"""Two runs side by side: what went in otherwise, and what came out."""

from __future__ import annotations

from collections.abc import Iterator

from modelbuild.cli.diff_words import moved_number
from modelbuild.cli.render import table
from modelbuild.review.changes import Change, changes
from modelbuild.review.runs import Run, run_named
from modelbuild.spec.canonical import Json
from modelbuild.spec.toml_text import toml_value
from modelbuild.store.store import Store


def print_compared(first: str, second: str, *, as_json: bool) -> int:
    """Of runs in the store, by the beginning of their ids or outputs. Raises UsageError."""
    store = Store.open()
    a, b = run_named(first, store), run_named(second, store)
    settings = changes(a.settings, b.settings)
    measured = [a.realisation.metrics, b.realisation.metrics]
    names = sorted({*measured[0], *measured[1]})
    metrics = [Change(name=n, old=measured[0].get(n), new=measured[1].get(n)) for n in names]
    if as_json:
        import json

        record = {
            "a": {"id": a.id, "stage": a.realisation.name, "output": str(a.realisation.output)},
            "b": {"id": b.id, "stage": b.realisation.name, "output": str(b.realisation.output)},
            "identical": a.realisation.output == b.realisation.output,
            "settings": {each.name: {"a": each.old, "b": each.new} for each in settings},
            "metrics": {each.name: {"a": each.old, "b": each.new} for each in metrics},
        }
        print(json.dumps(record, indent=2))
    else:
        print("\n".join(_lines(a, b, settings, metrics)))
    return 0


def _lines(
    a: Run, b: Run, settings: tuple[Change[Json], ...], metrics: list[Change[float]]
) -> Iterator[str]:
    for letter, run in (("A", a), ("B", b)):
        yield f"{letter}: {run.id} {run.realisation.name}, built {run.built:%Y-%m-%d %H:%M} UTC"
    if a.realisation.output == b.realisation.output:
        yield "the outputs are identical"
    rows = [[each.name, f"{_value(each.old)} -> {_value(each.new)}"] for each in settings]
    rows += [[each.name, moved_number(each)] for each in metrics]
    yield from table(rows) if rows else ()


def _value(value: Json) -> str:
    return "-" if value is None else toml_value(value)
