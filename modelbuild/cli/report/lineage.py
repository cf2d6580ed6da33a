"""The lineage of a recipe: what goes into what, as nodes that lead to their details.

Without JavaScript the nodes are a list of links; the script lays them out as a graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelbuild.cli.render import seconds, size
from modelbuild.cli.report.html import Markup, anchor, data, tag
from modelbuild.cli.report.pieces import count
from modelbuild.review.report import RecipeReport, StageReport
from modelbuild.spec.lock import LockedRecipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    id: str
    kind: str
    """`data`, `code`, `settings`, `environment`, `upstream`, `stage` or `output`."""
    name: str
    about: str
    reads: tuple[str, ...] = ()
    """Ids of the nodes that go into it."""


def nodes_of(report: RecipeReport) -> list[Node]:
    """In an order in which each comes after those that go into it."""
    locked = report.locked
    if locked is None:
        return []
    found = [*_data(locked), *_code(report, locked), _settings(locked), _environment(report)]
    found += _upstream(report)
    for stage in report.stages:
        found += [_stage(report, locked, stage), _output(stage)]
    used = {id_ for node in found for id_ in node.reads}
    return [node for node in found if node.kind in ("stage", "output") or node.id in used]


def _data(locked: LockedRecipe) -> Iterator[Node]:
    for name, each in sorted(locked.data.items()):
        rows = "" if each.rows is None else f", {each.rows:,} rows"
        about = f"{count(each.files, 'file')}, {size(each.bytes)}{rows}"
        yield Node(id=anchor(locked.name, "data", name), kind="data", name=name, about=about)


def code_sets(report: RecipeReport, locked: LockedRecipe) -> dict[tuple[str, ...], list[str]]:
    """The stages that see the same code, by what they see."""
    found: dict[tuple[str, ...], list[str]] = {}
    for stage in report.stages:
        seen = tuple(sorted(locked.code)) if stage.locked.code is None else stage.locked.code
        if seen:
            found.setdefault(seen, []).append(stage.id.stage)
    return found


def code_id(locked: LockedRecipe, stages: Sequence[str]) -> str:
    return anchor(locked.name, "code", *stages)


def _code(report: RecipeReport, locked: LockedRecipe) -> Iterator[Node]:
    for files, stages in code_sets(report, locked).items():
        name = files[0] if len(files) == 1 else count(len(files), "file")
        lines = sum(locked.code[file].lines for file in files if file in locked.code)
        id_ = code_id(locked, stages)
        yield Node(id=id_, kind="code", name=name, about=count(lines, "line"))


def _settings(locked: LockedRecipe) -> Node:
    about = f"{count(len(locked.params), 'parameter')}, seed {locked.seed}"
    id_ = anchor(locked.name, "settings")
    return Node(id=id_, kind="settings", name="parameters", about=about)


def _environment(report: RecipeReport) -> Node:
    each = report.environment
    packages = len(each.packages) if each else 0
    return Node(
        id=anchor(report.name, "environment"),
        kind="environment",
        name=f"Python {each.python}" if each else "environment",
        about=count(packages, "package"),
    )


def _upstream(report: RecipeReport) -> Iterator[Node]:
    """Stages of other recipes."""
    names = {each.stage for stage in report.stages for each in stage.locked.upstream.values()}
    for name in sorted(names):
        recipe, _, stage = name.partition(":")
        if recipe != report.name:
            id_ = anchor(report.name, "upstream", recipe, stage)
            yield Node(id=id_, kind="upstream", name=name, about="another recipe's output")


def _stage(report: RecipeReport, locked: LockedRecipe, stage: StageReport) -> Node:
    own = report.name
    reads = [anchor(own, "environment"), anchor(own, "settings")]
    reads += [code_id(locked, n) for n in code_sets(report, locked).values() if stage.id.stage in n]
    for each in stage.locked.reads:
        group, _, name = each.partition(".")
        reads += [anchor(own, "data", name)] if group == "data" and name in locked.data else []
    for upstream in stage.locked.upstream.values():
        recipe, _, name = upstream.stage.partition(":")
        kind = (own, "output", name) if recipe == own else (own, "upstream", recipe, name)
        reads.append(anchor(*kind))
    return Node(
        id=anchor(own, "stage", stage.id.stage),
        kind="stage",
        name=stage.id.stage,
        about=_ran(stage),
        reads=tuple(dict.fromkeys(reads)),
    )


def _ran(stage: StageReport) -> str:
    if stage.current is None:
        return "not built here"
    return f"ran {seconds(stage.current.run.realisation.resources.wall_seconds)}"


def _output(stage: StageReport) -> Node:
    claims = stage.locked.current_claims
    claim = next(iter(claims), None)
    return Node(
        id=anchor(stage.id.recipe, "output", stage.id.stage),
        kind="output",
        name=stage.id.stage,
        about=f"{claim.output.hex[:8]}, {size(claim.bytes)}" if claim else "not claimed",
        reads=(anchor(stage.id.recipe, "stage", stage.id.stage),),
    )


def graph(nodes: Sequence[Node], recipe: str) -> Markup:
    """Links to the details of each; the script turns them into a drawn graph."""
    links = [
        tag(
            "li",
            tag(
                "a",
                tag("span", node.kind, class_="kind"),
                tag("span", node.name, class_="name"),
                tag("span", node.about, class_="about"),
                href=f"#{node.id}",
                class_=f"node {node.kind}",
            ),
        )
        for node in nodes
    ]
    edges = [[each, node.id] for node in nodes for each in node.reads]
    return tag(
        "nav",
        tag("ul", links),
        data(edges),
        class_="lineage",
        aria_label=f"Lineage of {recipe}: choose a node to read its details",
    )
