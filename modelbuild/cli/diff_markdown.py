"""The difference of two locks as the comment of a pull request, in GitHub's markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from modelbuild.cli.diff_words import (
    MANY,
    claim_words,
    code_words,
    data_words,
    model_words,
    package_counts,
    package_words,
    probe_words,
    step,
    value_words,
)
from modelbuild.review.changes import Change
from modelbuild.review.difference import LockDifference, RecipeDifference, StageDifference

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~@])")


def diff_markdown(difference: LockDifference, old: str, new: str) -> str:
    """Readable without opening anything else."""
    lines = [f"### Models: {plain(old)} → {plain(new)}", ""]
    for alarm in difference.alarms:
        lines += ["> [!CAUTION]", f"> {plain(alarm)}", ""]
    for recipe in difference.recipes:
        lines += [*_recipe_lines(recipe, difference), ""]
    if not difference.recipes:
        lines += ["No recipe differs.", ""]
    lines += _list("Probes", list(probe_words(difference.probes)))
    if difference.recipes and difference.unchanged:
        lines.append(f"Unchanged: {plain(', '.join(difference.unchanged))}")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip("\n")


def _recipe_lines(recipe: RecipeDifference, difference: LockDifference) -> Iterator[str]:
    kind = "" if recipe.kind == "changed" else f" ({recipe.kind})"
    yield f"#### {plain(recipe.name)}{kind}"
    if recipe.kind == "removed":
        return
    yield ""
    yield from _results(recipe)
    yield from _warnings(recipe, difference)
    yield from _stages(recipe)
    if recipe.kind == "added":
        return
    for title, lines in _causes(recipe):
        yield from _list(title, lines)
    yield from _packages(recipe)


def _results(recipe: RecipeDifference) -> Iterator[str]:
    """A table of metrics; those that did not move are counted below it."""
    rows = [
        (stage, metric)
        for stage in recipe.stages
        if stage.new
        for metric in stage.metrics
        if metric.old != metric.new
    ]
    same = sum(
        metric.old == metric.new for stage in recipe.stages if stage.new for metric in stage.metrics
    )
    if rows:
        yield "| stage | metric | before | after | change |"
        yield "|---|---|---:|---:|---:|"
        yield from (_metric_row(stage, metric) for stage, metric in rows)
        yield ""
    if same:
        yield f"{same} {'metric' if same == 1 else 'metrics'} did not move."
        yield ""


def _metric_row(stage: StageDifference, metric: Change[float]) -> str:
    before = "" if metric.old is None else f"{metric.old:.6g}"
    after = "" if metric.new is None else f"**{metric.new:.6g}**"
    moved = ""
    if metric.old is not None and metric.new is not None:
        moved = step(metric.old, metric.new)
        noise = stage.noise.get(metric.name)
        moved += f"<br>{noise}" if noise else ""
    return f"| {plain(stage.name)} | {plain(metric.name)} | {before} | {after} | {moved} |"


def _warnings(recipe: RecipeDifference, difference: LockDifference) -> Iterator[str]:
    for stage in recipe.stages:
        for words in (*claim_words(stage, difference.classes), *model_words(stage)):
            name, _, rest = words.partition("  ")
            yield f"- **{plain(name)}** {plain(rest)}"
    yield ""


def _stages(recipe: RecipeDifference) -> Iterator[str]:
    for stage in recipe.stages:
        if stage.kind != "unchanged":
            why = ", ".join(map(code, stage.reasons))
            yield f"- **{plain(stage.name)}** {stage.kind}" + (f" because of {why}" if why else "")
    yield ""


def _causes(recipe: RecipeDifference) -> Iterator[tuple[str, list[str]]]:
    yield "Parameters", [value_words(each) for each in recipe.params]
    yield "Settings", [value_words(each) for each in recipe.settings]
    yield "Data", [line for each in recipe.data for line in data_words(each)]
    yield "Code", [code_words(each) for each in recipe.code]


def _list(title: str, lines: Sequence[str]) -> Iterator[str]:
    if not lines:
        return
    items = [_item(line) for line in lines]
    if len(items) > MANY:
        yield from _details(f"{title}: {len(items)} changes", items)
    else:
        yield from (f"**{title}**", "", *items, "")


def _item(line: str) -> str:
    name, _, rest = line.partition("  ")
    return f"- {code(name)} {plain(rest)}".rstrip()


def _packages(recipe: RecipeDifference) -> Iterator[str]:
    packages = recipe.packages
    if not packages:
        return
    if len(packages) <= MANY:
        yield from _list("Packages", [package_words(each) for each in packages])
        return
    notable = [each for each in packages if each.other_bytes or each.other_licence]
    yield from _list("Packages that ask for a look", [package_words(each) for each in notable])
    items = [_item(package_words(each)) for each in packages]
    yield from _details(package_counts(packages), items)


def _details(summary: str, items: Sequence[str]) -> Iterator[str]:
    yield from ("<details>", f"<summary>{plain(summary)}</summary>", "", *items, "", "</details>")
    yield ""


def plain(text: str) -> str:
    """What comes from a lock must not become markup, a link or a mention."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split())).replace("->", "→").replace("-\\>", "→")


def code(text: str) -> str:
    """As code, whatever backticks it has: a path may have any."""
    line = " ".join(text.split())
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {line} {fence}" if longest else f"`{line}`"
