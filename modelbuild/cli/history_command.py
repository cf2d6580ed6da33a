"""`modelbuild history`"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelbuild.cli.arguments import Parser, positive, unknown_name
from modelbuild.cli.render import table
from modelbuild.cli.targets import recipe_name, workspace_naming
from modelbuild.review.history import History, Step, history


def parser() -> Parser:
    made = Parser(
        "history",
        "Show a recipe's metrics over the commits that changed its lock, and what moved in each:\n"
        "when did it get worse, and why. Along first parents, so that a merge is one step.",
        "modelbuild history digits --metric accuracy",
    )
    made.add_argument("recipe", metavar="RECIPE", help="file, folder or name")
    made.add_argument("--metric", action="append", metavar="NAME", help="only this one")
    made.add_argument("--limit", type=positive, metavar="N", help="look at the last N commits only")
    made.add_argument("--json", action="store_true", help="print the steps as JSON")
    return made


def run(arguments: Sequence[str]) -> int:
    options = parser().parse(arguments)
    workspace = workspace_naming(options.recipe)
    found = history(recipe_name(options.recipe, workspace), workspace, options.limit)
    measured = {name.partition(" ")[2] for step in found.steps for name in step.metrics}
    for name in options.metric or ():
        if name not in measured:
            raise unknown_name("metric", name, measured)
    if options.json:
        import json

        print(json.dumps(_to_json(found), indent=2))
        return 0
    print("\n".join(_lines(found, options.metric)))
    return 0


def _lines(found: History, metrics: Sequence[str] | None) -> Iterator[str]:
    """A row a step; a column for every metric that any step has."""
    values = [_values(step, metrics) for step in found.steps]
    columns = list(dict.fromkeys(name for each in values for name in each))
    rows = [["date", "commit", *columns, "what moved"]]
    for step, measured in zip(found.steps, values, strict=True):
        shown = [f"{measured[name]:.6g}" if name in measured else "-" for name in columns]
        rows.append(
            [step.commit.date, step.commit.id[:8], *shown, f"{step.cause}: {step.commit.subject}"]
        )
    yield from table(rows)
    for commit in found.unreadable:
        yield f"{commit.date}  {commit.id[:8]}  the lock can't be read: {commit.subject}"


def _values(step: Step, metrics: Sequence[str] | None) -> dict[str, float]:
    """By `STAGE METRIC`."""
    chosen = step.metrics.items()
    return {n: v for n, v in chosen if metrics is None or n.partition(" ")[2] in metrics}


def _to_json(found: History) -> dict[str, object]:
    from modelbuild.cli.diff_json import probe_json, recipe_json

    return {
        "recipe": found.recipe,
        "steps": [
            {
                "commit": step.commit.id,
                "date": step.commit.date,
                "author": step.commit.author,
                "subject": step.commit.subject,
                "difference": recipe_json(step.difference),
                "probes": [probe_json(each) for each in step.probes],
            }
            for step in found.steps
        ],
        "unreadable": [commit.id for commit in found.unreadable],
    }
