"""What an audit asks for: classes, packages, notes, and how to build it all again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from modelbuild.cli.compared import against_words, compared_lines
from modelbuild.cli.render import size
from modelbuild.cli.report.html import Child, Markup, anchor, tag
from modelbuild.cli.report.pieces import badge, count, digest, facts, folded, table
from modelbuild.review.report import RecipeReport, Report, StageReport
from modelbuild.spec.lock import Lock, LockedEnvironment
from modelbuild.spec.probes import Probes


def verification(report: RecipeReport) -> Child:
    """Stage by stage, in the words of `modelbuild verify`."""
    verdict = report.verdict
    rows = [_verdict_row(stage) for stage in report.stages]
    absent = ", ".join(verdict.absent)
    lock: Child = ["The lock is ", badge(verdict.lock), " against recipe, code and data"]
    lock = [lock, f", but not on this machine: {absent}." if absent else "."]
    header = ["stage", "output in the store", "claim", "built again"]
    caption = "Stages, as modelbuild verify finds them"
    return [tag("p", lock), table(caption, header, rows) if rows else None]


def _verdict_row(stage: StageReport) -> list[Child]:
    verdict = stage.verdict
    if verdict is None:
        return [stage.id.stage, badge("unchecked"), badge("unchecked"), "no"]
    again: Child = "not for this report"
    if verdict.rebuild:
        agreement = str(verdict.rebuild.agreement)
        lines = [*compared_lines(verdict.rebuild.compared)]
        lines += [verdict.rebuild.steps.says] if verdict.rebuild.steps else []
        lines += [str(verdict.explanation)] if verdict.explanation else []
        against = against_words(verdict.rebuild).removeprefix(agreement)
        again = [badge(agreement), against, [tag("small", line) for line in lines]]
    store = badge("absent: not on this machine" if verdict.store == "absent" else verdict.store)
    return [stage.id.stage, store, badge(verdict.claim), again]


def problems(report: RecipeReport, folders: Mapping[str, str]) -> list[Markup]:
    """What does not hold, in the whole words of the errors, without this machine's folders."""
    verdict = report.verdict
    found = [*verdict.problems, *(p for each in verdict.stages.values() for p in each.problems)]
    return [tag("pre", _portable(str(problem), folders), class_="problem") for problem in found]


def _portable(text: str, folders: Mapping[str, str]) -> str:
    for folder, word in folders.items():
        text = text.replace(folder, word)
    return text


def notes(report: RecipeReport) -> Child:
    """Of the current runs: settings that a script undid, who shared a GPU, ..."""
    found: dict[str, list[str]] = {}
    for stage in report.stages:
        ran = stage.current.run.realisation.notes if stage.current else ()
        for note in dict.fromkeys([*ran, *(stage.verdict.notes if stage.verdict else ())]):
            found.setdefault(note, []).append(stage.id.stage)
    if not found:
        return None
    return tag("ul", [tag("li", f"{', '.join(who)}: {note}") for note, who in found.items()])


def again(report: RecipeReport, whole: Report) -> Child:
    """Commands, from a fresh clone on."""
    if report.locked is None:
        return None
    path = shlex.quote(str(report.locked.path))
    commit = whole.commit
    lines = [f"git checkout {commit.id}"] if commit and commit.same else []
    lines += [f"modelbuild build --locked {path}", f"modelbuild verify --rebuild {path}"]
    unsaved = "The lock of this report is not committed: keep it with this page."
    return [
        tag("pre", tag("code", "\n".join(lines))),
        tag("p", "modelbuild build fetches what is missing and builds; verify --rebuild trains "
            "again and compares bits with what is claimed here."),
        tag("p", unsaved, class_="remark") if not lines[0].startswith("git") else None,
    ]  # fmt: skip


def classes(report: Report) -> list[Markup]:
    """Those that a claim, a spread over seeds or a current run of these recipes names."""
    found = dict(report.lock.classes)
    used = set()
    for stage in (stage for recipe in report.recipes for stage in recipe.stages):
        used |= stage.locked.classes
        if stage.current:
            realisation = stage.current.run.realisation
            used.add(realisation.numeric_class)
            found.setdefault(realisation.numeric_class, realisation.facts)
    return [_class(key, found[key], report.lock) for key in sorted(used) if key in found]


def _class(key: str, known: Mapping[str, str], lock: Lock) -> Markup:
    title = ["class ", tag("code", key), " ", known.get("gpus") or known.get("cpu-model")]
    rows = [(name, tag("code", value)) for name, value in sorted(known.items())]
    probed = [_probes(name, each) for name, each in sorted(lock.probes.get(key, {}).items())]
    content = table(f"Facts of numeric class {key}", ["fact", "value"], rows)
    return folded(title, content, probed or None, id_=anchor("class", key))


def _probes(name: str, each: Probes) -> Markup:
    operations = ", ".join(f"{n} {each.operations[n]}" for n in sorted(each.operations))
    threads = ", ".join(f"{n} {number}" for n, number in sorted(each.threads.items()))
    return facts(
        [
            ("probes of", tag("code", name)),
            ("digest", digest(each.digest)),
            ("operations", tag("code", operations)),
            ("threads", threads),
        ]
    )


def environments(report: Report) -> Iterator[Markup]:
    keys = dict.fromkeys(each.locked.environment for each in report.recipes if each.locked)
    for key in sorted(keys):
        users = [e.name for e in report.recipes if e.locked and e.locked.environment == key]
        yield _environment(key, report.lock.environments[key], users)


def _environment(key: str, each: LockedEnvironment, users: list[str]) -> Markup:
    title = f"Python {each.python}, {count(len(each.packages), 'package')}, for {', '.join(users)}"
    rows: list[list[Child]] = [
        [w.name, w.version, w.licence, size(w.bytes), tag("code", w.filename), digest(w.sha256)]
        for w in each.wheels
    ]
    header = ["package", "version", "licence", "size", "file", "SHA-256"]
    brought: list[list[Child]] = [
        [d.name, d.version, d.licence, size(d.bytes), digest(str(d.digest))]
        for d in each.distributions
    ]
    columns = ["distribution", "version", "licence", "size", "digest"]
    interpreters = [tag("li", digest(str(digest_))) for digest_ in each.interpreters]
    return folded(
        title,
        facts(
            [
                ("environment", tag("code", key)),
                ("platform", each.platform),
                ("backend", each.backend),
                ("base", each.base),
                ("interpreters", tag("ul", interpreters) if interpreters else None),
                ("licences", _licences(each)),
            ]
        ),
        table(f"Packages of environment {key}", header, rows, numbers=[3]) if rows else None,
        table(f"Brought by the interpreter of {key}", columns, brought, numbers=[3])
        if brought
        else None,
        id_=anchor("environment", key),
    )


def _licences(each: LockedEnvironment) -> str:
    found: dict[str, int] = {}
    licences = [w.licence for w in each.wheels] + [d.licence for d in each.distributions]
    for licence in licences:
        found[licence] = found.get(licence, 0) + 1
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{licence} ({number})" for licence, number in ordered)
