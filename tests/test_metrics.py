"""Metrics are read from JSON and compared with exact, inclusive, two-sided tolerances."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelbuild.spec.metrics import (
    MetricsComparison,
    compare_metrics,
    parse_metrics,
)
from modelbuild.spec.recipe import Tolerance


def agreements(comparison: MetricsComparison) -> dict[str, str]:
    return {metric.name: metric.agreement.value for metric in comparison.metrics}


def test_numbers_are_metrics_and_nested_objects_give_dotted_names() -> None:
    data = b"""{"loss": 0.5, "epochs": 3, "test": {"accuracy": 0.98, "per class": {"7": 1e-3}},
        "ok": true, "name": "digits", "nothing": null, "history": [1, 2, {"a": 3}]}"""
    metrics = parse_metrics(data, "metrics.json")
    assert metrics == {
        "epochs": 3.0,
        "loss": 0.5,
        "test.accuracy": 0.98,
        "test.per class.7": 0.001,
    }
    assert list(metrics) == sorted(metrics)
    assert all(type(value) is float for value in metrics.values())


def test_an_object_without_numbers_gives_no_metrics() -> None:
    assert parse_metrics(b"{}", "metrics.json") == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "m.json: not JSON: Expecting value: line 1 column 1 (char 0)"),
        (
            b"\xff\xfe\xfd",
            "m.json: not JSON: 'utf-16-le' codec can't decode byte 0xfd in position 2: "
            "truncated data",
        ),
        (b"[1, 2]", "m.json: not a JSON object"),
        (b"3", "m.json: not a JSON object"),
        (b'{"loss": NaN}', "m.json: 'loss' is nan; a metric must be a finite number"),
        (b'{"a": {"b": -Infinity}}', "m.json: 'a.b' is -inf; a metric must be a finite number"),
        (b'{"loss": 1e999}', "m.json: 'loss' is inf; a metric must be a finite number"),
        (
            b'{"loss": 1' + b"0" * 400 + b"}",
            "m.json: 'loss' is inf; a metric must be a finite number",
        ),
        (b'{"loss": 1, "loss": 2}', "m.json: two metrics are named 'loss'"),
        (b'{"a.b": 1, "a": {"b": 2}}', "m.json: two metrics are named 'a.b'"),
        (b'{"a":' * 90_000, "m.json: nested too deeply"),
        (
            b'{"a": "' + b"x" * 1_000_000 + b'"}',
            "m.json: 1,000,009 bytes; a metrics file has at most 1,000,000",
        ),
    ],
)
def test_a_file_that_holds_no_valid_metrics_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse_metrics(data, "m.json")
    assert str(caught.value) == message


def test_a_number_of_too_many_digits_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^m\.json: not JSON: Exceeds the limit"):
        parse_metrics(b'{"loss": ' + b"1" * 5000 + b"}", "m.json")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_metrics_or_a_value_error(data: bytes) -> None:
    try:
        metrics = parse_metrics(data, "m.json")
    except ValueError as error:
        assert str(error).startswith("m.json: ")  # noqa: PT017
    else:
        assert all(map(math.isfinite, metrics.values()))


@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters=".", exclude_categories=["Cs"])),
        st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_metrics_survive_being_written(metrics: dict[str, float]) -> None:
    assert parse_metrics(json.dumps(metrics).encode(), "m.json") == metrics


def test_every_agreement_has_its_own_word() -> None:
    claimed = {"same": 1.0, "near": 1.0, "far": 1.0, "gone": 1.0}
    found = {"same": 1.0, "near": 1.01, "far": 1.03, "added": 1.0}
    tolerances = {name: Tolerance(abs=0.02) for name in ("same", "near", "far")}
    comparison = compare_metrics(claimed, found, tolerances)
    assert agreements(comparison) == {
        "added": "new",
        "far": "different",
        "gone": "missing",
        "near": "within tolerance",
        "same": "identical",
    }
    assert not comparison.within


@pytest.mark.parametrize(
    ("claimed", "found", "tolerance", "good"),
    [
        (0.3, 0.302, Tolerance(abs=0.002), True),
        (0.3, 0.298, Tolerance(abs=0.002), True),
        (0.3, 0.3020000000000001, Tolerance(abs=0.002), False),
        (0.3, 0.2979999999999999, Tolerance(abs=0.002), False),
        (0.3, 0.1 + 0.2, Tolerance(), False),
        (0.3, 0.1 + 0.2, Tolerance(abs=1e-15), True),
        (0.7, 0.8, Tolerance(abs=0.1), True),
        (1.1, 1.2, Tolerance(abs=0.1), True),
        (200.0, 202.0, Tolerance(rel=0.01), True),
        (200.0, 198.0, Tolerance(rel=0.01), True),
        (200.0, 202.00001, Tolerance(rel=0.01), False),
        (-200.0, -202.0, Tolerance(rel=0.01), True),
        (0.7, 0.77, Tolerance(rel=0.1), True),
        (0.0, 1e-300, Tolerance(rel=0.5), False),
        (200.0, 202.0, Tolerance(abs=0.5, rel=0.01), True),
        (1.0, 1.5, Tolerance(abs=0.5, rel=0.01), True),
        (1e308, -1e308, Tolerance(abs=1e308), False),
        (math.nan, 1.0, Tolerance(abs=9.0), False),
        (1.0, math.inf, Tolerance(abs=9.0), False),
    ],
)
def test_tolerances_have_two_sides_and_their_ends_are_good(
    claimed: float, found: float, tolerance: Tolerance, good: bool
) -> None:
    comparison = compare_metrics({"m": claimed}, {"m": found}, {"m": tolerance})
    assert agreements(comparison) == {"m": "within tolerance" if good else "different"}
    assert comparison.within is good


def test_only_metrics_with_a_tolerance_decide_where_there_is_one() -> None:
    tolerances = {"accuracy": Tolerance(abs=0.01)}
    claimed, found = {"accuracy": 0.9, "loss": 1.0}, {"accuracy": 0.905, "loss": 2.0, "new": 1.0}
    comparison = compare_metrics(claimed, found, tolerances)
    assert comparison.within
    assert agreements(comparison)["loss"] == "different"


def test_all_metrics_decide_where_none_has_a_tolerance() -> None:
    assert compare_metrics({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}, {}).within
    assert not compare_metrics({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.1}, {}).within
    assert not compare_metrics({"a": 1.0, "b": 2.0}, {"a": 1.0}, {}).within
    assert not compare_metrics({"a": 1.0}, {"a": 1.0, "b": 2.0}, {}).within


def test_a_tolerance_for_another_stage_s_metric_decides_nothing() -> None:
    tolerances = {"accuracy": Tolerance(abs=0.01)}
    assert compare_metrics({"loss": 1.0}, {"loss": 1.0}, tolerances).within
    assert not compare_metrics({"loss": 1.0}, {"loss": 1.1}, tolerances).within


def test_a_metric_with_a_tolerance_that_is_missing_or_new_is_not_within_it() -> None:
    tolerances = {"accuracy": Tolerance(abs=0.01)}
    assert not compare_metrics({"accuracy": 1.0}, {}, tolerances).within
    assert not compare_metrics({}, {"accuracy": 1.0}, tolerances).within


def test_nothing_is_within_tolerance_where_nothing_was_measured() -> None:
    assert not compare_metrics({}, {}, {"accuracy": Tolerance(abs=0.01)}).within
    assert not compare_metrics({}, {}, {}).within


@pytest.mark.parametrize("depth", [34, 500, 960, 990, 2000])
def test_metrics_are_nested_32_deep_at_most(depth: int) -> None:
    assert parse_metrics(nested(32), "m.json") == {".".join(["a"] * 33): 1.0}
    with pytest.raises(ValueError, match=r"^m\.json: nested too deeply$"):
        parse_metrics(nested(depth), "m.json")


def nested(depth: int) -> bytes:
    return b'{"a":' * (depth + 1) + b"1" + b"}" * (depth + 1)
