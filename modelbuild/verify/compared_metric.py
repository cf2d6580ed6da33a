"""One metric on two sides, and what it is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from modelbuild.spec.seed_statistics import FEW, PairedDifference, SeedStatistics

T = TypeVar("T")
FEW_SEEDS = f"with fewer than {FEW} seeds only large differences can be told from noise"


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedMetric:
    """One metric of both sides: two recipes, or a recipe in two revisions."""

    first: float
    """The mean over the seeds."""
    second: float
    first_spread: SeedStatistics | None
    """Over these seeds; with one seed each, as the lock has it of the recipe's own seeds."""
    second_spread: SeedStatistics | None
    paired: PairedDifference | None
    """None: of one seed each, or of seeds that are not the same."""
    noise: str | None = None
    """Where nothing is paired: how the difference compares with what is on record of seeds."""

    @classmethod
    def of(cls, paired: PairedDifference) -> ComparedMetric:
        return cls(
            first=paired.first.mean,
            second=paired.second.mean,
            first_spread=paired.first,
            second_spread=paired.second,
            paired=paired,
        )

    @property
    def difference(self) -> float:
        return self.paired.difference.mean if self.paired else self.second - self.first


def naming(*sides: Mapping[str, Mapping[str, object]]) -> Callable[[str, str], str]:
    """How a stage's metric is called: by its name, with the stage where several have it."""
    counts = [Counter(name for metrics in side.values() for name in metrics) for side in sides]
    shared = {name for count in counts for name, stages in count.items() if stages > 1}
    return lambda stage, metric: f"{stage}:{metric}" if metric in shared else metric


def by_name(
    stages: Mapping[str, Mapping[str, T]], named: Callable[[str, str], str]
) -> dict[str, T]:
    return {
        named(stage, m): each for stage, metrics in stages.items() for m, each in metrics.items()
    }


def many_metrics(count: int) -> str:
    """What to bear in mind of several verdicts."""
    return f"{count} metrics: one in 20 differs by chance alone, which the verdicts allow for"
