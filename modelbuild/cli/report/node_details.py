"""What is to be read of each node of the lineage."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence

from modelbuild.cli.render import number, seconds, size
from modelbuild.cli.report.html import Child, Markup, anchor, tag
from modelbuild.cli.report.lineage import Node, code_id, code_sets
from modelbuild.cli.report.pieces import badge, digest, facts, folded, setting, short, table
from modelbuild.review.report import RecipeReport, StageReport
from modelbuild.spec.lock import LockedData, LockedRecipe

Details = tuple[str, Child]
"""A node's id and what to read of it."""


def details(report: RecipeReport, nodes: Sequence[Node], on_page: Collection[str]) -> list[Markup]:
    """One for each node, in their order, closed until it is chosen.

    `on_page` are the recipes that the page is about.
    """
    contents = dict(_contents(report, on_page))
    return [
        folded(
            [tag("span", node.kind, class_="kind"), " ", tag("strong", node.name), " ",
             tag("span", node.about, class_="about")],
            contents.get(node.id),
            id_=node.id,
        )
        for node in nodes
    ]  # fmt: skip


def _contents(report: RecipeReport, on_page: Collection[str]) -> Iterator[Details]:
    locked = report.locked
    if locked is None:
        return
    for name, each in locked.data.items():
        yield anchor(report.name, "data", name), _data(each, name in report.verdict.absent)
    for files, stages in code_sets(report, locked).items():
        yield code_id(locked, stages), _code(locked, files, stages)
    yield anchor(report.name, "settings"), _settings(locked)
    yield anchor(report.name, "environment"), _environment(report, locked)
    for stage in report.stages:
        yield anchor(report.name, "stage", stage.id.stage), _stage(stage)
        yield anchor(report.name, "output", stage.id.stage), _output(stage)
        for upstream in stage.locked.upstream.values():
            recipe, _, own = upstream.stage.partition(":")
            yield anchor(report.name, "upstream", recipe, own), _upstream(recipe, own, on_page)


def _upstream(recipe: str, stage: str, on_page: Collection[str]) -> Child:
    words = f"the output of {recipe}:{stage}"
    if recipe not in on_page:
        return tag("p", f"It is {words}, which is not on this page.")
    return tag("p", "It is ", tag("a", words, href=f"#{anchor(recipe, 'output', stage)}"), ".")


def _data(each: LockedData, absent: bool) -> Child:
    rows = None if each.rows is None else f"{each.rows:,}"
    return facts(
        [
            ("declared as", tag("code", each.declared) if each.declared else None),
            ("resolved to", each.resolved),
            ("digest", digest(str(each.digest))),
            ("files", f"{each.files:,}"),
            ("size", f"{size(each.bytes)} ({each.bytes:,} bytes)"),
            ("rows", rows),
            ("columns", ", ".join(each.columns) if each.columns else None),
            ("here", "not on this machine: its digest is not checked" if absent else None),
        ]
    )


def _code(locked: LockedRecipe, files: tuple[str, ...], stages: list[str]) -> Child:
    rows = [
        (tag("code", name), f"{locked.code[name].lines:,}", digest(str(locked.code[name].digest)))
        for name in files
        if name in locked.code
    ]
    caption = f"Code that {' and '.join(stages)} can see"
    return table(caption, ["file", "lines", "digest"], rows, numbers=[1])


def _settings(locked: LockedRecipe) -> Child:
    rows: list[tuple[Child, Child]] = [
        (name, tag("code", setting(value))) for name, value in sorted(locked.params.items())
    ]
    rows.append(("seed", tag("code", str(locked.seed))))
    rows += [(f"hardware: {name}", tag("code", str(v))) for name, v in locked.hardware.items()]
    return table("Parameters, seed and hardware", ["setting", "value"], rows)


def _environment(report: RecipeReport, locked: LockedRecipe) -> Child:
    each = report.environment
    link = tag("a", "All packages", href=f"#{anchor('environment', locked.environment)}")
    requires = [tag("code", requirement) for requirement in locked.requires]
    return [
        facts(
            [
                ("Python", each.python if each else None),
                ("platform", each.platform if each else None),
                ("backend", each.backend if each else None),
                ("asked for", tag("ul", [tag("li", r) for r in requires]) if requires else None),
                ("resolved by", locked.resolver),
                ("bootstrap", digest(locked.runtime)),
            ]
        ),
        tag("p", link, " with their licences and digests."),
    ]


def _stage(stage: StageReport) -> Child:
    locked, current = stage.locked, stage.current
    pairs: list[tuple[str, Child]] = [
        ("command", tag("code", shlex.join(locked.run), class_="command")),
        ("derivation", digest(str(locked.derivation))),
    ]
    if current is None:
        pairs.append(("run", "there is no run of it on record on this machine"))
        return facts(pairs)
    realisation = current.run.realisation
    used = realisation.resources
    pairs += [
        ("run", [tag("code", current.run.id), f", {current.run.built:%Y-%m-%d %H:%M} UTC"]),
        ("took", f"{seconds(used.wall_seconds)}, {seconds(used.cpu_seconds)} of processors"),
        ("peak memory", size(used.peak_memory_bytes)),
        ("isolation", realisation.isolation),
        ("numeric class", _class_link(realisation.numeric_class)),
        ("interpreter", digest(realisation.interpreter)),
        ("modelbuild", realisation.builder),
    ]
    return facts(pairs)


def _class_link(key: str) -> Markup:
    return tag("a", tag("code", key), href=f"#{anchor('class', key)}")


def _output(stage: StageReport) -> Child:
    verdict, current = stage.verdict, stage.current
    words: list[Child] = []
    if verdict:
        words = ["store ", badge(verdict.store), " claim ", badge(verdict.claim)]
    pairs: list[tuple[str, Child]] = [("verified", words)]
    if current:
        realisation = current.run.realisation
        parameters = realisation.parameters
        pairs += [
            ("digest", digest(str(realisation.output))),
            ("files", f"{realisation.files:,}"),
            ("size", f"{size(realisation.bytes)} ({realisation.bytes:,} bytes)"),
            ("parameters", None if parameters is None else f"{parameters:,}"),
            ("metrics", ", ".join(f"{n} {number(v)}" for n, v in realisation.metrics.items())),
            ("here", "yes" if current.here else "not on this machine"),
        ]
    claims = [
        (_class_link(claim.numeric_class), short(str(claim.output)))
        for claim in stage.locked.current_claims
    ]
    listed = [tag("li", output, " on class ", link) for link, output in claims]
    pairs.append(("claimed", tag("ul", listed) if listed else "nothing: not built since it moved"))
    return facts(pairs)
