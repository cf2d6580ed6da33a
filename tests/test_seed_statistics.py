"""Statistics over seeds: held against printed tables, and against many drawn samples."""

from __future__ import annotations

import math
import random
from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelbuild.spec.seed_statistics import (
    SeedStatistics,
    compare_paired,
    holm,
    summarise,
)
from modelbuild.spec.student_t import quantile, two_sided, within

TABLE = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
    10: 2.228,
    15: 2.131,
    20: 2.086,
    29: 2.045,
    30: 2.042,
    60: 2.000,
    120: 1.980,
}
"""Two-sided 95 % points, as printed in Abramowitz and Stegun, table 26.10."""

values = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))
samples = st.lists(values, min_size=2, max_size=12)


@pytest.mark.parametrize(("degrees", "printed"), TABLE.items())
def test_the_quantiles_are_the_printed_ones(degrees: int, printed: float) -> None:
    assert round(quantile(degrees), 3) == printed


@pytest.mark.parametrize(
    ("degrees", "probability", "printed"),
    [(1, 0.99, 63.657), (4, 0.99, 4.604), (9, 0.99, 3.250), (4, 0.90, 2.132), (30, 0.90, 1.697)],
)
def test_other_probabilities_have_their_printed_quantiles(
    degrees: int, probability: float, printed: float
) -> None:
    assert round(quantile(degrees, probability), 3) == printed


@pytest.mark.parametrize(
    ("t", "degrees", "p"),
    # One and two degrees have simple forms: 1 - 2/pi atan t, and 1 - t / sqrt(2 + t^2).
    [(1.0, 1, 0.5), (3.0, 2, 1 - 3 / math.sqrt(11)), (-3.0, 2, 1 - 3 / math.sqrt(11)), (0, 7, 1)],
)
def test_p_values_of_simple_cases_are_exact(t: float, degrees: int, p: float) -> None:
    assert two_sided(t, degrees) == pytest.approx(p, abs=1e-14)


@given(st.floats(0, 50), st.integers(1, 200))
def test_the_distribution_is_the_integral_of_its_density(t: float, degrees: int) -> None:
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2))
    scale /= math.sqrt(degrees * math.pi)

    def density(x: float) -> float:
        return scale * (1 + x * x / degrees) ** (-(degrees + 1) / 2)

    steps = 2000
    width = t / steps
    inner = sum((4 if n % 2 else 2) * density(n * width) for n in range(1, steps))
    simpson = width / 3 * (density(0) + density(t) + inner)
    assert within(t, degrees) == pytest.approx(2 * simpson, abs=1e-7)


def test_a_worked_example() -> None:
    # Student's own data (The probable error of a mean, 1908): extra hours of sleep.
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = compare_paired({"sleep": (first, second)})["sleep"]
    assert round(found.difference.mean, 2) == 1.58
    assert (round(found.difference.low, 4), round(found.difference.high, 4)) == (0.7001, 2.4599)
    assert round(found.p, 6) == 0.002833
    assert (found.higher, found.equal, found.lower) == (9, 1, 0)
    assert found.verdict == "larger than seed noise"


@given(samples)
def test_the_interval_lies_around_the_mean_and_the_mean_between_the_values(
    sample: list[float],
) -> None:
    found = summarise(sample)
    assert (found.seeds, found.least, found.most) == (len(sample), min(sample), max(sample))
    assert found.mean == pytest.approx(mean(sample))
    assert found.deviation == pytest.approx(stdev(sample))
    assert found.low <= found.mean <= found.high
    assert found.least - 1e-9 <= found.mean <= found.most + 1e-9


def test_the_interval_holds_the_true_mean_in_19_of_20_samples() -> None:
    draw = random.Random(5)
    samples = [[draw.gauss(3.0, 2.0) for _ in range(4)] for _ in range(4000)]
    found = [summarise(sample) for sample in samples]
    share = sum(each.low <= 3.0 <= each.high for each in found) / len(found)
    assert share == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("count", [3, 5, 20])
def test_a_seed_like_the_others_is_unusual_in_1_of_20_samples(count: int) -> None:
    draw = random.Random(count)
    samples = [[draw.gauss(0.0, 1.0) for _ in range(count)] for _ in range(4000)]
    unusual = sum(not summarise(sample).usual(sample[0]) for sample in samples) / len(samples)
    assert unusual == pytest.approx(0.05, abs=0.012)


def test_a_lucky_seed_is_unusual_although_it_widens_the_spread() -> None:
    sample = [0.99, 0.95, 0.951, 0.949, 0.95]
    assert summarise(sample).usual(0.99) is False
    assert summarise(sample).usual(0.951) is True


def test_of_two_seeds_neither_is_unusual() -> None:
    assert summarise([1.0, 2.0]).usual(2.0) is None


def test_without_spread_nothing_is_usual_or_unusual() -> None:
    assert summarise([0.5, 0.5, 0.5]).usual(0.5) is None
    assert summarise([0.5, 0.5, 0.5]).usual(0.6) is None


def test_two_recipes_without_spread_get_no_verdict_on_their_difference() -> None:
    found = compare_paired(
        {
            "fixed": ([0.5] * 5, [0.6] * 5),
            "same": ([0.5] * 5, [0.5] * 5),
            "shifted": ([0.1, 0.2, 0.4, 0.1, 0.3], [1.1, 1.2, 1.4, 1.1, 1.35]),
        }
    )
    assert found["fixed"].verdict == "no spread over seeds"
    assert found["fixed"].p == 1.0
    assert found["same"].verdict == "equal"
    assert found["shifted"].verdict == "larger than seed noise"


def test_the_spread_of_one_seed_is_not_known() -> None:
    with pytest.raises(ValueError, match="the spread of fewer than two seeds is not known"):
        summarise([1.0])


def test_what_is_written_has_four_digits_of_the_deviation() -> None:
    found = summarise([0.971, 0.975, 0.968, 0.979, 0.97]).rounded()
    assert found == SeedStatistics(
        seeds=5, mean=0.9726, deviation=0.004393, low=0.967145, high=0.978055, least=0.968,
        most=0.979,
    )  # fmt: skip
    large = summarise([1_234_567.5, 1_234_999.5, 1_230_000.25]).rounded()
    assert (large.mean, large.deviation) == (1_233_189.0, 2770.0)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=6))
def test_adjusting_for_several_metrics_only_ever_raises_p(p_values: dict[str, float]) -> None:
    adjusted = holm(p_values)
    assert adjusted.keys() == p_values.keys()
    for name, p in p_values.items():
        assert p <= adjusted[name] <= min(1.0, max(len(p_values), 1) * max(p_values.values()))


def test_holm_as_in_its_textbook_example() -> None:
    # Steps 4, 3, 2, 1 times p, never falling.
    p_values = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    assert holm(p_values) == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_two_recipes_of_one_quality_differ_by_chance_in_1_of_20() -> None:
    draw = random.Random(11)

    def recipe() -> list[float]:
        return [draw.gauss(0.9, 0.01) for _ in range(5)]

    found = [compare_paired({"accuracy": (recipe(), recipe())})["accuracy"] for _ in range(3000)]
    share = sum(each.verdict == "larger than seed noise" for each in found) / len(found)
    assert share == pytest.approx(0.05, abs=0.012)


def test_a_difference_that_only_one_of_many_metrics_shows_is_unclear() -> None:
    draw = random.Random(3)
    metrics = {
        f"metric {number}": ([1.0, 2.0, 3.0, 4.0, 5.0], [draw.gauss(3.0, 1.0) for _ in range(5)])
        for number in range(9)
    }
    metrics["accuracy"] = ([1.0, 2.0, 3.0, 4.0, 5.0], [1.2, 2.1, 3.25, 4.05, 5.3])
    alone = compare_paired({"accuracy": metrics["accuracy"]})["accuracy"]
    among = compare_paired(metrics)["accuracy"]
    assert (alone.p, alone.verdict) == (among.p, "larger than seed noise")
    assert among.verdict == "unclear"


def test_the_same_on_every_seed_is_equal() -> None:
    found = compare_paired({"loss": ([1.0, 2.0], [1.0, 2.0])})["loss"]
    assert (found.verdict, found.p, found.equal) == ("equal", 1.0, 2)
