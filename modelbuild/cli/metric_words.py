"""How one metric of two sides, A and B, reads."""

from __future__ import annotations

from modelbuild.cli.render import number
from modelbuild.cli.spread import decimals, statistics_json, statistics_words
from modelbuild.spec.seed_statistics import PairedDifference, SeedStatistics
from modelbuild.verify.compared_metric import ComparedMetric


def sentence(metric: ComparedMetric) -> str:
    """`B is higher by 0.012 (95 % CI 0.004 to 0.020; 5 seeds; p 0.012): larger than seed noise`"""
    paired = metric.paired
    if paired is None:
        noise = f": {metric.noise}" if metric.noise else ""
        return f"A {number(metric.first)}, B {number(metric.second)}: {_direction(metric)}{noise}"
    count = paired.difference.seeds
    if paired.verdict == "equal":
        return f"the same with all {count} seeds"
    if paired.verdict == "no spread over seeds":
        return (
            f"{_direction(metric)}, and all {count} seeds gave the same value with A and with B:"
            " no verdict; do the scripts use {seed}?"
        )
    low, high = paired.difference.low, paired.difference.high
    if metric.difference < 0:
        low, high = -high, -low
    low_words, high_words = (decimals(value, paired.difference) for value in (low, high))
    return (
        f"{_direction(metric)} (95 % CI {low_words} to {high_words}; {count} seeds; "
        f"{_p_words(paired.p)}): {_verdict(paired)}"
    )


def _direction(metric: ComparedMetric) -> str:
    if metric.difference == 0:
        return "no difference"
    paired = metric.paired
    by = abs(metric.difference)
    size = decimals(by, paired.difference) if paired else number(by)
    return f"B is {'higher' if metric.difference > 0 else 'lower'} by {size}"


def _p_words(p: float) -> str:
    return "p below 0.0001" if p < 0.0001 else f"p {p:.2g}"


def _verdict(paired: PairedDifference) -> str:
    if paired.verdict == "unclear":
        return (
            "unclear: larger than seed noise if it were the only metric "
            f"({_p_words(paired.adjusted_p)} among all)"
        )
    return paired.verdict


def mean_lines(metric: ComparedMetric) -> list[str]:
    spreads = {"A": metric.first_spread, "B": metric.second_spread}
    lines = [f"{label}: {statistics_words(each)}" for label, each in spreads.items() if each]
    paired = metric.paired
    if paired and paired.verdict != "equal":
        lines.append(
            f"seed by seed: B higher {paired.higher}, equal {paired.equal}, lower {paired.lower}"
        )
    return lines


def metric_json(metric: ComparedMetric) -> dict[str, object]:
    paired = metric.paired
    return {
        "first": metric.first,
        "second": metric.second,
        "difference": metric.difference,
        "low": paired.difference.low if paired else None,
        "high": paired.difference.high if paired else None,
        "p": paired.p if paired else None,
        "adjusted_p": paired.adjusted_p if paired else None,
        "higher": paired.higher if paired else None,
        "equal": paired.equal if paired else None,
        "lower": paired.lower if paired else None,
        "verdict": paired.verdict if paired else metric.noise,
        "first_spread": _spread_json(metric.first_spread),
        "second_spread": _spread_json(metric.second_spread),
    }


def _spread_json(spread: SeedStatistics | None) -> dict[str, object] | None:
    return statistics_json(spread) if spread else None
