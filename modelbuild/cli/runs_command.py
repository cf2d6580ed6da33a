"""`modelbuild runs`"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelbuild.cli.arguments import Parser, positive, unknown_name
from modelbuild.cli.render import number, seconds, table
from modelbuild.cli.targets import workspace_of
from modelbuild.review.runs import Run, runs, varying
from modelbuild.sources.lock_on_disk import read_lock
from modelbuild.spec.toml_text import toml_value
from modelbuild.store.store import Store


def parser() -> Parser:
    made = Parser(
        "runs",
        "List what was built here, latest first: metrics, and the settings in which runs differ.\n"
        "Experiments with --set and builds of other workspaces are among them.",
        "modelbuild runs digits:train --limit 20",
    )
    made.add_argument("recipe", nargs="?", metavar="RECIPE[:STAGE]", help="a recipe's name")
    made.add_argument("--limit", type=positive, default=30, metavar="N", help="the last N (30)")
    made.add_argument("--json", action="store_true", help="print the runs as JSON")
    return made


def run(arguments: Sequence[str]) -> int:
    options = parser().parse(arguments)
    recipe, _, stage = (options.recipe or "").partition(":")
    found = runs(Store.open(), recipe or None, stage or None)
    if options.recipe and not found:
        _check_named(options.recipe)
    shown = found[: options.limit]
    if options.json:
        import json

        print(json.dumps([_to_json(each) for each in shown], indent=2))
        return 0
    print("\n".join(_lines(shown)) if shown else "nothing was built here")
    if len(shown) < len(found):
        print(f"and {len(found) - len(shown)} older ones (--limit {len(found)} lists them)")
    return 0


def _check_named(target: str) -> None:
    """Of what is locked here there may be no run; of anything else there is nothing to say.

    Raises UsageError.
    """
    built = {each.realisation.name for each in runs(Store.open())}
    locked = read_lock(workspace_of(None)).recipes
    stages = built | {f"{name}:{stage}" for name, each in locked.items() for stage in each.stages}
    recipes = {each.partition(":")[0] for each in stages}
    if target not in stages | recipes:
        known = stages if ":" in target else recipes
        what = "stage" if ":" in target else "recipe"
        raise unknown_name(what, target, known)


def _lines(shown: Sequence[Run]) -> Iterator[str]:
    settings = varying(shown)
    rows = [["id", "built (UTC)", "stage", "time", *settings, "metrics"]]
    for each in shown:
        values = [_value(each.settings.get(name)) for name in settings]
        metrics = ", ".join(
            f"{name} {number(value)}" for name, value in each.realisation.metrics.items()
        )
        when = f"{each.built:%Y-%m-%d %H:%M}"
        took = seconds(each.realisation.resources.wall_seconds)
        rows.append([each.id, when, each.realisation.name, took, *values, metrics])
    return iter(table(rows))


def _value(value: object) -> str:
    return "-" if value is None else toml_value(value)  # type: ignore[arg-type]  # JSON is


def _to_json(each: Run) -> dict[str, object]:
    realisation = each.realisation
    recipe, _, stage = realisation.name.partition(":")
    return {
        "id": each.id,
        "recipe": recipe,
        "stage": stage,
        "built": each.built.isoformat(timespec="seconds"),
        "derivation": str(realisation.derivation),
        "resolved": str(realisation.resolved),
        "output": str(realisation.output),
        "settings": each.settings,
        "metrics": dict(realisation.metrics),
        "seconds": realisation.resources.wall_seconds,
        "isolation": realisation.isolation,
        "class": realisation.numeric_class,
    }
