"""Whether a metric moved by more than it does from seed to seed, by what is on record."""

from __future__ import annotations

import math

from modelbuild.spec.seed_statistics import SIGNIFICANT, SeedStatistics
from modelbuild.spec.student_t import quantile, two_sided

LARGER = "larger than seed noise"
WITHIN = "within seed noise"


def against_noise(
    old: float, new: float, before: SeedStatistics | None, after: SeedStatistics | None
) -> str | None:
    """LARGER, WITHIN, or None where no spread is on record on either side.

    Seeds that all gave the same are no spread: the seed may not reach the script at all.
    With both spreads, Welch's test of the two means (degrees of freedom rounded down). With one,
    whether the other side's single value lies in the 95 % prediction interval of one more seed.
    """
    before, after = (each if each and each.deviation else None for each in (before, after))
    if before and after:
        return _verdict(_differ(before, after))
    if before:
        return _verdict(not _predicts(before, new))
    if after:
        return _verdict(not _predicts(after, old))
    return None


def _verdict(larger: bool) -> str:
    return LARGER if larger else WITHIN


def _differ(one: SeedStatistics, other: SeedStatistics) -> bool:
    """B. L. Welch, The generalization of 'Student's' problem, Biometrika 34 (1947)."""
    first, second = (each.deviation**2 / each.seeds for each in (one, other))
    t = (other.mean - one.mean) / math.sqrt(first + second)
    freedom = (first + second) ** 2 / (first**2 / (one.seeds - 1) + second**2 / (other.seeds - 1))
    return two_sided(t, max(1, int(freedom))) < SIGNIFICANT


def _predicts(spread: SeedStatistics, value: float) -> bool:
    half = quantile(spread.seeds - 1) * spread.deviation * math.sqrt(1 + 1 / spread.seeds)
    return abs(value - spread.mean) <= half
