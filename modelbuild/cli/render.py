"""How results read in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from modelbuild.build.agreement import Agreement
from modelbuild.build.request import StageResult
from modelbuild.spec.recipe import Determinism, Level


def stage_line(name: str, width: int, result: StageResult) -> str:
    """`digits:train  built  12.3 s  627.8 KiB  accuracy 0.9783  identical to the claim`"""
    parts = [f"{name:<{width}}", f"{result.how:<5}"]
    realisation = result.realisation
    if realisation is None:
        return "  ".join(parts)
    parts.append(f"{seconds(realisation.resources.wall_seconds):>8}")
    parts.append(size(realisation.bytes).rjust(9))
    shown = list(realisation.metrics.items())
    parts += [f"{metric} {number(value)}" for metric, value in shown[:4]]
    if len(shown) > 4:
        parts.append(f"and {len(shown) - 4} more metrics")
    if realisation.isolation != "full":
        parts.append(f"isolation {realisation.isolation}")
    parts.append(_claim_words(result))
    lines = ["  ".join(part for part in parts if part)]
    lines += [f"{'':<{width}}  note: {note}" for note in realisation.notes]
    return "\n".join(lines)


def _claim_words(result: StageResult) -> str:
    judgement = result.judgement
    if judgement is None:
        return ""
    if judgement.claim is None or judgement.agreement is None:
        return ""
    claim = judgement.claim
    words = "the claim" if judgement.same_class else "the claim of another class"
    other = "" if judgement.same_class else f" ({claim.numeric_class})"
    return agreement_words(judgement.agreement, words) + other


def level_words(determinism: Determinism) -> str:
    """`level functional, allows index_add_`; nothing at level bitwise, which is the default."""
    if determinism.level is Level.BITWISE:
        return ""
    allowed = f", allows {', '.join(determinism.allow)}" if determinism.allow else ""
    return f"level {determinism.level}{allowed}"


def agreement_words(agreement: Agreement, first: str) -> str:
    preposition = {
        Agreement.IDENTICAL: "to",
        Agreement.WITHIN_TOLERANCE: "of",
        Agreement.DIFFERENT: "from",
    }[agreement]
    return f"{agreement} {preposition} {first}"


def number(value: float) -> str:
    """Counts in full, measurements to four digits."""
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def seconds(value: float) -> str:
    if value < 120:
        return f"{value:.1f} s"
    if value < 7200:
        return f"{value / 60:.1f} min"
    return f"{value / 3600:.1f} h"


def size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns that are as wide as their widest cell; the last one is ragged."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
