"""The difference of two locks as a reviewer reads it in a terminal: what came out comes first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelbuild.cli.diff_words import (
    MANY,
    claim_words,
    code_words,
    data_words,
    metric_words,
    model_words,
    package_counts,
    package_words,
    probe_words,
    stage_words,
    value_words,
)
from modelbuild.review.difference import LockDifference, RecipeDifference
from modelbuild.review.packages import PackageChange


def diff_text(difference: LockDifference, old: str, new: str, *, everything: bool = False) -> str:
    """`everything`: nothing is folded."""
    lines = [f"ALARM: {alarm}" for alarm in difference.alarms]
    for recipe in difference.recipes:
        lines += ["", *_recipe_lines(recipe, difference, everything)]
    if not difference.recipes:
        lines += ["", f"no recipe differs between {old} and {new}"]
    if probes := list(probe_words(difference.probes, everything=everything)):
        lines += ["", "probes", *(f"  {line}" for line in probes)]
    if difference.recipes and difference.unchanged:
        lines += ["", f"unchanged: {', '.join(difference.unchanged)}"]
    return "\n".join(lines).strip("\n")


def _recipe_lines(
    recipe: RecipeDifference, difference: LockDifference, everything: bool
) -> Iterator[str]:
    yield recipe.name if recipe.kind == "changed" else f"{recipe.name} ({recipe.kind})"
    if recipe.kind == "removed":
        return
    yield from _section(None, [stage_words(stage) for stage in recipe.stages])
    results = [
        line
        for stage in recipe.stages
        for line in (
            *metric_words(stage),
            *model_words(stage),
            *claim_words(stage, difference.classes),
        )
    ]
    yield from _section("results", results)
    if recipe.kind == "added":
        # All of it is new: what stands in the recipe needs no list here.
        return
    yield from _section("parameters", [value_words(each) for each in recipe.params])
    yield from _section("settings", [value_words(each) for each in recipe.settings])
    yield from _section("data", [line for each in recipe.data for line in data_words(each)])
    yield from _section("code", _folded([code_words(each) for each in recipe.code], everything))
    yield from _section(
        "requirements", [_requirement(each.old, each.new) for each in recipe.requires]
    )
    yield from _section("packages", _package_lines(recipe.packages, everything))


def _section(title: str | None, lines: Sequence[str]) -> Iterator[str]:
    if not lines:
        return
    if title:
        yield f"  {title}"
    indent = "    " if title else "  "
    yield from (indent + line for line in lines)


def _requirement(old: str | None, new: str | None) -> str:
    return f"- {old}" if old else f"+ {new}"


def _folded(lines: list[str], everything: bool) -> list[str]:
    if everything or len(lines) <= MANY:
        return lines
    return [*lines[: MANY - 1], f"and {len(lines) - MANY + 1} more (--all lists them)"]


def _package_lines(packages: Sequence[PackageChange], everything: bool) -> list[str]:
    """Of many, only those that ask for a look; the others in one line."""
    if everything or len(packages) <= MANY:
        return [package_words(each) for each in packages]
    notable = [each for each in packages if each.other_bytes or each.other_licence]
    folded = f"{package_counts(packages)} (--all lists them)"
    return [*(package_words(each) for each in notable), folded]
