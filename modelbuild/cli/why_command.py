"""`modelbuild why`"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from modelbuild.build.build import build
from modelbuild.build.request import BuildRequest
from modelbuild.cli.arguments import Parser, unknown_name
from modelbuild.cli.render import table
from modelbuild.cli.targets import recipe_path, workspace_naming, workspace_of
from modelbuild.review.changes import Change
from modelbuild.review.why import Kept, Why, explain, keeps
from modelbuild.sandbox.isolation import Isolation
from modelbuild.sources.locations import read_locations
from modelbuild.sources.lock_on_disk import read_lock
from modelbuild.spec.canonical import Json
from modelbuild.store.store import Store


def parser() -> Parser:
    made = Parser(
        "why",
        "Say why a stage would be built, or would not: what differs from its claimed build,\n"
        "else from the nearest one here, field by field. Of a path in the store: what keeps it\n"
        "there and who used it.",
        "modelbuild why digits:train",
    )
    made.add_argument("target", metavar="RECIPE[:STAGE]|PATH")
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="settings",
        help="as in build; may be given again",
    )
    made.add_argument("--json", action="store_true", help="print the answer as JSON")
    return made


def run(arguments: Sequence[str]) -> int:
    options = parser().parse(arguments)
    store = Store.open()
    kept = keeps(Path(options.target), read_lock(workspace_of(None)), store)
    if kept is not None:
        _print(kept_json(kept) if options.json else "\n".join(_kept_lines(kept)))
        return 0
    recipe, _, stage = options.target.partition(":")
    found = _explained(recipe, options.settings, store)
    own = [each for each in found if not stage or each.identity.stage == stage]
    if not own:
        raise unknown_name("stage", stage, (each.identity.stage for each in found))
    _print([_to_json(each) for each in own] if options.json else "\n".join(_lines(own)))
    return 0


def _print(answer: object) -> None:
    if not isinstance(answer, str):
        import json

        answer = json.dumps(answer, indent=2)
    print(answer)


def _explained(recipe: str, settings: Sequence[str], store: Store) -> list[Why]:
    """Also of the stages of other recipes that it builds on."""
    workspace = workspace_naming(recipe)
    request = BuildRequest(
        workspace=workspace,
        store=store,
        recipe=recipe_path(recipe, workspace),
        isolation=Isolation.FULL,
        dry_run=True,
        settings=settings,
        locations=read_locations(os.environ),
    )
    return explain(build(request), store)


def _lines(found: Sequence[Why]) -> Iterator[str]:
    for why in found:
        yield f"{why.identity} {'is built: ' + str(why.path) if why.path else 'would build'}"
        if why.last is None:
            yield "  " + ("no other build of it is here" if why.path else "never built here")
            continue
        when = f"{why.last.built:%Y-%m-%d %H:%M} UTC"
        yield (
            f"  since the build {why.last.id} of {when}:"
            if why.moved
            else (f"  the same as the build {why.last.id} of {when}, whose output is gone")
        )
        yield from ("    " + line for line in table([_row(each) for each in why.moved]))


def _row(change: Change[Json]) -> list[str]:
    return [change.name, f"{_short(change.old)} -> {_short(change.new)}"]


def _short(value: Json) -> str:
    """Digests by their beginning."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return value[:13] if value.startswith("b3:") else value
    import json

    if isinstance(value, list) and value and str(value[0]).startswith("b3:"):
        return str(value[0])[:13]
    return json.dumps(value)


def _to_json(why: Why) -> dict[str, object]:
    return {
        "stage": str(why.identity),
        "how": why.how,
        "path": str(why.path) if why.path else None,
        "last": why.last.id if why.last else None,
        "moved": {each.name: {"old": each.old, "new": each.new} for each in why.moved},
    }


def _kept_lines(kept: Kept) -> Iterator[str]:
    yield str(kept.path)
    made = sorted({each.name for each in kept.made_by})
    for title, names in (
        ("made by", made),
        ("kept by the links", [str(link) for link in kept.links]),
        ("claimed in model.lock by", [str(each) for each in kept.claimed]),
        ("read by", list(kept.used_by)),
    ):
        yield f"  {title}: {', '.join(names) or 'none'}"


def kept_json(kept: Kept) -> dict[str, object]:
    return {
        "path": str(kept.path),
        "made_by": sorted({each.name for each in kept.made_by}),
        "links": [str(link) for link in kept.links],
        "claimed": [str(each) for each in kept.claimed],
        "used_by": list(kept.used_by),
    }
