"""What several seeds say of a metric, so that a gain can be told from seed noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelbuild.spec.student_t import quantile, two_sided

SIGNIFICANT = 0.05
"""A difference that chance alone makes less often than this is larger than seed noise."""
FEW = 5
"""With fewer seeds than this only large differences can be told from noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedStatistics:
    """A metric over `seeds` seeds, at least two."""

    seeds: int
    mean: float
    deviation: float
    """The sample's standard deviation: the spread from seed to seed."""
    low: float
    """`low` to `high` is the 95 % confidence interval of the mean (Student's t)."""
    high: float
    least: float
    most: float

    def usual(self, value: float) -> bool | None:
        """Whether one of the seeds fits to the others, at 95 %.

        None where it can't be told: of too few, or where all gave the same.

        The externally studentised residual, which has Student's t-distribution (Cook and
        Weisberg, Residuals and Influence in Regression, 2.2.1): a lucky seed would otherwise hide
        in the spread that it widens itself.
        """
        if self.seeds < 3 or self.deviation == 0:
            return None
        count, distance = self.seeds, (value - self.mean) / self.deviation
        square = distance * distance * count / (count - 1)
        left = count - 1 - square
        if left <= 0:
            return False
        return two_sided(math.sqrt(square * (count - 2) / left), count - 2) >= SIGNIFICANT

    def rounded(self) -> SeedStatistics:
        """To four digits of the deviation: so it is written into the lock."""
        from dataclasses import replace

        digits = _decimals(self.deviation)
        return replace(
            self,
            mean=_round(self.mean, digits),
            deviation=_round(self.deviation, digits),
            low=_round(self.low, digits),
            high=_round(self.high, digits),
        )


def _decimals(deviation: float) -> int:
    """Of a number, so that its fourth digit is the last."""
    return 3 - int(f"{deviation:.3e}".partition("e")[2]) if deviation else 12


def _round(value: float, digits: int) -> float:
    return round(value, min(digits, 300)) + 0.0  # no -0.0


def summarise(values: Sequence[float]) -> SeedStatistics:
    """Of the finite values of at least two seeds; mean and deviation are correctly rounded."""
    from statistics import mean, stdev  # costs start-up time

    if len(values) < 2:
        raise ValueError("the spread of fewer than two seeds is not known")
    middle, deviation = mean(map(float, values)), stdev(map(float, values))
    half = quantile(len(values) - 1) * deviation / math.sqrt(len(values))
    return SeedStatistics(
        seeds=len(values),
        mean=middle,
        deviation=deviation,
        low=middle - half,
        high=middle + half,
        least=min(values),
        most=max(values),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDifference:
    """A metric of a second recipe minus that of a first, seed by seed."""

    first: SeedStatistics
    second: SeedStatistics
    difference: SeedStatistics
    p: float
    """Of the paired t-test, two-sided."""
    adjusted_p: float
    """The same, allowing for all metrics that are compared (Holm)."""
    higher: int
    """On how many seeds the second is higher."""
    equal: int
    lower: int

    @property
    def verdict(self) -> str:
        """`equal`, `larger than seed noise`, `not distinguishable from seed noise`, `unclear`,
        `no spread over seeds`.

        Unclear is what would be larger than noise, were it the only metric compared. Where no seed
        gives another value on either side, the seed may not reach the script at all.
        """
        if self.equal == self.difference.seeds:
            return "equal"
        if _constant(self.first, self.second):
            return "no spread over seeds"
        if self.adjusted_p < SIGNIFICANT:
            return "larger than seed noise"
        return "unclear" if self.p < SIGNIFICANT else "not distinguishable from seed noise"


def compare_paired(
    metrics: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> dict[str, PairedDifference]:
    """For each metric its values on the same seeds, at least two, with either recipe."""
    differences = {
        name: summarise([b - a for a, b in zip(first, second, strict=True)])
        for name, (first, second) in metrics.items()
    }
    sides = {name: tuple(map(summarise, both)) for name, both in metrics.items()}
    p_values = {
        name: 1.0 if _constant(*sides[name]) else _p_value(each)
        for name, each in differences.items()
    }
    adjusted = holm(p_values)
    return {
        name: PairedDifference(
            first=sides[name][0],
            second=sides[name][1],
            difference=differences[name],
            p=p_values[name],
            adjusted_p=adjusted[name],
            higher=sum(b > a for a, b in zip(first, second, strict=True)),
            equal=sum(b == a for a, b in zip(first, second, strict=True)),
            lower=sum(b < a for a, b in zip(first, second, strict=True)),
        )
        for name, (first, second) in metrics.items()
    }


def _constant(*sides: SeedStatistics) -> bool:
    return all(each.deviation == 0 for each in sides)


def _p_value(difference: SeedStatistics) -> float:
    if difference.deviation == 0:
        return 1.0 if difference.mean == 0 else 0.0
    t = difference.mean / (difference.deviation / math.sqrt(difference.seeds))
    return two_sided(t, difference.seeds - 1)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted for how many there are (Holm, A simple sequentially rejective test, 1979)."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: (p_values[name], name))):
        highest = max(highest, min(1.0, p_values[name] * (len(p_values) - place)))
        adjusted[name] = highest
    return adjusted
