"""How the spread of a metric over seeds reads."""

from __future__ import annotations

from collections.abc import Mapping

from modelbuild.build.seed_record import Spread
from modelbuild.spec.seed_statistics import SeedStatistics

SHOWN = 4
"""Metrics of a stage that are shown: as many as of its result."""


def spread_lines(spreads: Mapping[str, Spread]) -> list[str]:
    """`seeds: accuracy 0.978 is usual: mean 0.971, deviation 0.006, ... (5 seeds)`"""
    lines = []
    for name, each in list(spreads.items())[:SHOWN]:
        own = "" if each.own is None else f" {decimals(each.own, each.statistics)}"
        lines.append(f"seeds: {name}{own}{_judgement(each)}: {statistics_words(each.statistics)}")
    if len(spreads) > SHOWN:
        lines.append(f"seeds: and {len(spreads) - SHOWN} more metrics")
    return lines


def _judgement(spread: Spread) -> str:
    if spread.usual is None:
        return ""
    return " is usual" if spread.usual else " is unusual"


def statistics_words(each: SeedStatistics) -> str:
    """`mean 0.971, deviation 0.006, 95 % CI 0.964 to 0.978 (5 seeds: 0.965 to 0.978)`"""
    mean, deviation, low, high, least, most = (
        decimals(value, each)
        for value in (each.mean, each.deviation, each.low, each.high, each.least, each.most)
    )
    return (
        f"mean {mean}, deviation {deviation}, 95 % CI {low} to {high} "
        f"({each.seeds} seeds: {least} to {most})"
    )


def decimals(value: float, statistics: SeedStatistics) -> str:
    """To two digits of the deviation: what comes after them says nothing."""
    deviation = statistics.deviation
    exponent = int(f"{deviation:.1e}".partition("e")[2]) if deviation else 0
    if not -8 <= exponent <= 12:
        return f"{value:.6g}"
    if not deviation:
        return f"{value:,.0f}" if value == int(value) else f"{value:.6g}"
    return f"{value:,.{max(0, 1 - exponent)}f}"


def spread_json(spreads: Mapping[str, Spread]) -> dict[str, object]:
    """By metric, as documented with `build --json` and `verify --json`."""
    return {
        name: {"own": each.own, "usual": each.usual, **statistics_json(each.statistics)}
        for name, each in spreads.items()
    }


def statistics_json(each: SeedStatistics) -> dict[str, object]:
    return {
        "seeds": each.seeds,
        "mean": each.mean,
        "deviation": each.deviation,
        "low": each.low,
        "high": each.high,
        "min": each.least,
        "max": each.most,
    }
