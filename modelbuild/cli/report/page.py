"""The whole page: one file that asks for nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files

from modelbuild.cli.render import level_words, number
from modelbuild.cli.report import evidence
from modelbuild.cli.report.curves import curves
from modelbuild.cli.report.html import Child, Markup, anchor, tag
from modelbuild.cli.report.lineage import graph, nodes_of
from modelbuild.cli.report.node_details import details
from modelbuild.cli.report.pieces import NOTHING, badge, count, digest, facts, section, table
from modelbuild.cli.report.results import metrics, runs
from modelbuild.cli.report.timeline import timeline
from modelbuild.review.report import RecipeReport, Report


def render_page(report: Report) -> str:
    """The same records give the same bytes."""
    # Two scripts in one element: the page's policy names the digest of what may run.
    script = _asset("libraries.js") + _asset("page.js")
    names = ", ".join(each.name for each in report.recipes)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("meta", name_="referrer", content="no-referrer"),
        tag("title", f"Report: {names}"),
        tag("style", Markup(_asset("page.css"))),
    )
    body = tag(
        "body",
        tag("a", "Skip to the content", href="#content", class_="skip"),
        _header(report),
        tag("main", _content(report), id="content", tabindex="-1"),
        tag("footer", f"Written by modelbuild {version('modelbuild')}."),
        tag("script", Markup(script)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _asset(name: str) -> str:
    return files("modelbuild.cli.report").joinpath(name).read_text("utf-8")


def _policy(script: str) -> str:
    """Nothing is loaded, sent or framed; one script runs: this one."""
    known = base64.b64encode(sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{known}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )


def _header(report: Report) -> Markup:
    commit = report.commit
    state = "with this lock" if commit and commit.same else "but the lock differs from it"
    names = [each.name for each in report.recipes]
    return tag(
        "header",
        tag("h1", "Report: ", ", ".join(names) if len(names) < 4 else count(len(names), "recipe")),
        facts(
            [
                ("model.lock", digest(str(report.lock_digest))),
                ("commit", [tag("code", commit.id), f", {state}"] if commit else None),
            ]
        ),
        _summary(report),
    )


def _summary(report: Report) -> Child:
    """A row a recipe; verdicts are never mixed into one."""
    failed = len(report.verified.problems)
    verdict: Child = (
        [badge("all that was checked holds", "good"), _unchecked(report)]
        if not failed
        else badge(f"{count(failed, 'thing')} found not to hold: see below", "bad")
    )
    header = ["recipe", "lock", "outputs in the store", "claims", "built again", "results"]
    rows = [_summary_row(each) for each in report.recipes]
    return [tag("p", verdict, class_="verdict"), table("Recipes", header, rows)]


def _unchecked(report: Report) -> str:
    """What the good news does not cover."""
    stages = [stage.verdict for recipe in report.recipes for stage in recipe.stages]
    absent = sum(1 for each in stages if each is None or each.store == "absent")
    again = sum(1 for each in stages if each and each.rebuild)
    words = [f"{again} of {count(len(stages), 'stage')} built again"]
    words += [f"{count(absent, 'output')} not on this machine"] if absent else []
    return f" ({', '.join(words)})"


def _summary_row(each: RecipeReport) -> list[Child]:
    stages = [stage.verdict for stage in each.stages if stage.verdict]
    rebuilt = [str(stage.rebuild.agreement) for stage in stages if stage.rebuild]
    link = tag("a", each.name, href=f"#{anchor('recipe', each.name)}")
    return [
        link,
        badge(each.verdict.lock),
        _counted([stage.store for stage in stages]),
        _counted([stage.claim for stage in stages]),
        _counted(rebuilt) if rebuilt else "no",
        _result(each),
    ]


def _counted(words: list[str]) -> Child:
    """`2 identical`, `1 different`: each word with how many stages it is said of."""
    if not words:
        return NOTHING
    each = {word: words.count(word) for word in dict.fromkeys(words)}
    return [[badge(word), f" {n} " if len(each) > 1 else " "] for word, n in each.items()]


def _result(each: RecipeReport) -> str:
    """The metrics of the last stage that claims some."""
    for stage in reversed(each.stages):
        for claim in stage.locked.current_claims:
            if claim.metrics:
                return ", ".join(f"{n} {number(v)}" for n, v in list(claim.metrics.items())[:4])
    return NOTHING


def _content(report: Report) -> list[Markup]:
    packages = list(evidence.environments(report))
    return [
        *(_recipe(each, report) for each in report.recipes),
        section("Environments", packages, level=2, id_="environments"),
        section("Numeric classes", evidence.classes(report), level=2, id_="classes"),
    ]


def _recipe(each: RecipeReport, report: Report) -> Markup:
    nodes = nodes_of(each)
    own = [anchor(each.name, word) for word in ("lineage", "details")]
    listed = tag(
        "div", details(each, nodes, {other.name for other in report.recipes}), class_="details"
    )
    drawn = tag("div", graph(nodes, each.name), listed, class_="pair")
    return tag(
        "article",
        tag("h2", each.name),
        [tag("p", line) for line in _about(each)],
        evidence.problems(each, report.folders),
        section("Verification", evidence.verification(each)),
        section("Lineage", drawn if nodes else None, id_=own[0]),
        section("Metrics", metrics(each) if each.locked else None),
        section("Curves", curves(each)),
        section("Runs", runs(each)),
        section("History", timeline(each.history)),
        section("Notes", evidence.notes(each)),
        section("Build it again", evidence.again(each, report)),
        id=anchor("recipe", each.name),
    )


def _about(each: RecipeReport) -> Iterator[str]:
    if each.recipe and each.recipe.description:
        yield each.recipe.description
    if each.verdict.determinism:
        yield f"Promises {level_words(each.verdict.determinism) or 'level bitwise'}."
