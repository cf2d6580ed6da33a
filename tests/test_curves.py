"""Curves: what is read from a log of a training, and what of it is said to be missing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelbuild.errors import InvalidInputError
from modelbuild.review.curves import MOST_CURVES, CurveLog, parse_curves
from modelbuild.review.thinning import MOST_BUCKETS, Thinner
from modelbuild.spec.recipe_file import parse_recipe


def jsonl(*records: object) -> CurveLog:
    return parse_curves([json.dumps(each).encode() + b"\n" for each in records], is_csv=False)


def csv(text: str) -> CurveLog:
    return parse_curves([line.encode() + b"\n" for line in text.splitlines()], is_csv=True)


def points(log: CurveLog) -> dict[str, list[tuple[float, float]]]:
    return {curve.name: list(curve.points) for curve in log.curves}


def test_numbers_become_curves_over_the_step():
    log = jsonl({"step": 10, "loss": 2.0, "lr": 1}, {"step": 20, "loss": 1.5, "lr": 1})
    assert log.axis == "step"
    assert points(log) == {"loss": [(10, 2.0), (20, 1.5)], "lr": [(10, 1.0), (20, 1.0)]}


def test_the_axis_may_first_be_named_after_some_lines():
    log = jsonl({"message": "hello"}, {"epoch": 1, "loss": 3})
    assert (log.axis, log.lines, log.damaged) == ("epoch", 2, 1)
    assert points(log) == {"loss": [(1, 3.0)]}


def test_without_a_step_the_lines_are_counted():
    assert points(jsonl({"loss": 3}, {"loss": 2})) == {"loss": [(1, 3.0), (2, 2.0)]}


def test_without_a_step_a_csv_is_drawn_over_its_first_column():
    log = csv("time,loss\n0.5,3\n0.75,2")
    assert (log.axis, points(log)) == ("time", {"loss": [(0.5, 3.0), (0.75, 2.0)]})


def test_nested_objects_give_dotted_names_and_words_give_nothing():
    log = jsonl({"step": 1, "val": {"loss": 2, "note": "x"}, "ok": True, "none": None, "l": [1]})
    assert points(log) == {"val.loss": [(1, 2.0)]}


def test_rows_of_a_csv_may_leave_cells_empty_and_quote_commas():
    log = csv('step,loss,"val,loss",who\n1,3,,ada\n2,,2.5,"b,c"')
    assert points(log) == {"loss": [(1, 3.0)], "val,loss": [(2, 2.5)]}
    assert log.damaged == 0


def test_damaged_lines_are_counted():
    lines = [b'{"step": 1, "loss": 2}\n', b"\n", b"\xff\xfe\n", b"[1]\n", b'{"step": 2, "lo']
    log = parse_curves(lines, is_csv=False)
    assert (log.lines, log.damaged) == (4, 3)
    assert points(log) == {"loss": [(1, 2.0)]}
    deep = b'{"a":' * 100_000
    assert parse_curves([deep], is_csv=False).damaged == 1
    assert parse_curves([b"x" * 2_000_000], is_csv=False).damaged == 1
    assert csv("step,loss\n1\n2,3,4\n3,5").damaged == 2


def test_values_that_are_not_finite_are_counted_and_not_drawn():
    lines = [b'{"step": 1, "loss": NaN}', b'{"step": 2, "loss": 1}', b'{"step": 3, "loss": 1e999}']
    log = parse_curves(lines, is_csv=False)
    assert (log.not_finite, points(log)) == (2, {"loss": [(2, 1.0)]})
    assert csv("step,loss\n1,inf\n2,3").not_finite == 1


def test_many_columns_are_left_out_and_counted():
    log = jsonl({f"c{place}": place for place in range(MOST_CURVES + 3)})
    assert (len(log.curves), log.left_out) == (MOST_CURVES, 3)


@pytest.mark.parametrize("is_csv", [True, False])
def test_an_empty_log_has_no_curves(is_csv):
    assert parse_curves([], is_csv=is_csv).curves == ()


def thinned(values: Iterable[float]) -> Thinner:
    first, *rest = values
    thinner = Thinner(0, first)
    for place, value in enumerate(rest, start=1):
        thinner.add(place, value)
    return thinner


def test_a_short_curve_is_kept_whole():
    values = [math.sin(place) for place in range(2 * MOST_BUCKETS)]
    assert thinned(values).points() == tuple(enumerate(values))


def test_a_peak_of_a_long_curve_is_kept():
    values = [1 / (place + 1) for place in range(100_000)]
    values[77_777] = 50.0
    values[12_345] = -3.0
    found = thinned(values)
    assert len(found.points()) <= 2 * MOST_BUCKETS + 2
    assert {(77_777, 50.0), (12_345, -3.0)} <= set(found.points())
    assert found.points()[0] == (0, 1.0)
    assert found.points()[-1] == (99_999, values[-1])


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=3000))
def test_thinning_keeps_both_ends_the_extremes_and_the_order(values):
    found = thinned(values)
    kept = found.points()
    assert set(kept) <= set(enumerate(values))
    assert list(kept) == sorted(kept)
    assert {kept[0], kept[-1]} == {(0, values[0]), (len(values) - 1, values[-1])}
    assert found.values == len(values)
    assert min(y for _, y in kept) == min(values) == found.lowest[1]
    assert max(y for _, y in kept) == max(values) == found.highest[1]


RECIPE = """
schema = 1
[model]
name = "curved"
[environment]
python = "3.11"
packages = []
[stages.train]
run = ["python", "train.py"]
curves = {}
"""


def test_curves_are_one_file_or_a_list():
    def stage(value: str) -> tuple[str, ...]:
        recipe = parse_recipe(RECIPE.replace("{}", value).encode(), PurePosixPath("recipe.toml"))
        return recipe.stages["train"].curves

    assert stage('"train.jsonl"') == ("train.jsonl",)
    assert stage('["a.csv", "logs/b.jsonl", "a.csv"]') == ("a.csv", "logs/b.jsonl")
    with pytest.raises(InvalidInputError) as raised:
        stage('"../train.jsonl"')
    assert str(raised.value) == (
        "recipe.toml:10: 'curves' in [stages.train] leaves the output\n"
        "  wanted: a path relative to the output that stays in the output\n"
        "  found:  ../train.jsonl"
    )
    with pytest.raises(InvalidInputError) as raised:
        stage("7")
    assert str(raised.value) == (
        "recipe.toml:10: wrong type for 'curves' in [stages.train]\n"
        "  wanted: a string or a list of strings\n"
        "  found:  an integer: 7"
    )
