"""Predictions on a golden input, compared number by number."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from modelbuild.build.agreement import Agreement, Compared, Result, breaks, compare_results
from modelbuild.build.predictions import PredictionsComparison, compare_predictions
from modelbuild.spec.digest import Digest
from modelbuild.spec.recipe import Level, Predictions, Recipe, Tolerance
from modelbuild.spec.recipe_file import parse_recipe


@pytest.fixture
def outputs(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    return tmp_path / "first", tmp_path / "second"


def compared(
    outputs: tuple[Path, Path], file: str = "golden.npy", **tolerance: float
) -> PredictionsComparison:
    return compare_predictions(*outputs, Predictions(file=file, tolerance=Tolerance(**tolerance)))


def save(outputs: tuple[Path, Path], first: object, second: object, kind: str = "float32") -> None:
    for output, values in zip(outputs, (first, second), strict=True):
        np.save(output / "golden.npy", np.array(values, kind))


@pytest.mark.parametrize("sign", [1, -1])
def test_tolerances_have_two_sides(outputs: tuple[Path, Path], sign: int) -> None:
    save(outputs, [1.0, -2.0], [1.0 + sign * 0.01, -2.0 - sign * 0.01])
    assert compared(outputs, abs=0.011).within
    assert compared(outputs, rel=0.011).within
    found = compared(outputs, abs=0.009)
    assert (found.values, found.outside, found.first_outside) == (2, 2, "array[0]")
    found = compared(outputs, rel=0.006)
    assert (found.values, found.outside, found.first_outside) == (2, 1, "array[0]")


def test_the_relative_tolerance_is_of_the_first_value(outputs: tuple[Path, Path]) -> None:
    save(outputs, [0.0, 100.0], [0.001, 101.0])
    assert compared(outputs, rel=0.02).outside == 1
    assert compared(outputs, rel=0.02, abs=0.01).within


def test_every_number_of_a_large_array_is_compared(outputs: tuple[Path, Path]) -> None:
    first = np.arange(600_000, dtype="float64").reshape(600, 1000)
    second = first.copy()
    second[599, 998] += 5
    second[3, 4] += 0.5
    save(outputs, first, second, "float64")
    found = compared(outputs, abs=1)
    assert (found.values, found.outside, found.largest_abs) == (600_000, 1, 5.0)
    assert found.first_outside == "array[599,998]"
    assert str(found) == (
        "predictions golden.npy: 1 of 600,000 outside the tolerance, at most 5 apart,"
        " first at array[599,998]"
    )


def test_labels_must_be_equal_unless_a_tolerance_says_otherwise(
    outputs: tuple[Path, Path],
) -> None:
    save(outputs, [1, 2, 3], [1, 2, 4], "int64")
    assert compared(outputs, abs=0.5).outside == 1
    assert compared(outputs, abs=1).within


def test_a_nan_agrees_with_a_nan_only(outputs: tuple[Path, Path]) -> None:
    nan, inf = float("nan"), float("inf")
    save(outputs, [nan, inf, -inf, 1], [nan, inf, -inf, 1.25])
    assert compared(outputs, abs=1).within
    save(outputs, [nan, inf, -inf, 1], [1, -inf, 1, inf])
    assert compared(outputs, abs=1e300).outside == 4


def test_another_shape_or_type_is_different(outputs: tuple[Path, Path]) -> None:
    save(outputs, [1, 2], [[1, 2]])
    assert str(compared(outputs, abs=1)) == (
        "predictions golden.npy: different: array is float32[2] in the first,"
        " float32[1,2] in the second"
    )
    assert not compared(outputs, abs=1).within


def test_several_arrays_in_one_file(outputs: tuple[Path, Path]) -> None:
    for output, values in zip(outputs, ([1.0], [1.5]), strict=True):
        np.savez(output / "golden.npz", logits=np.array(values), labels=np.array([3]))
    assert compared(outputs, "golden.npz", abs=0.5).within
    found = compared(outputs, "golden.npz", abs=0.4)
    assert (found.values, found.outside, found.first_outside) == (2, 1, "logits[0]")
    np.savez(outputs[1] / "golden.npz", logits=np.array([1.0]))
    assert compared(outputs, "golden.npz", abs=1).problem == "not the same arrays"


def test_json_and_csv(outputs: tuple[Path, Path]) -> None:
    for output, value in zip(outputs, (0.5, 0.5001), strict=True):
        (output / "golden.json").write_text(json.dumps({"a": [value, "cat"], "b": None}))
        (output / "golden.csv").write_text(f"image,score\ncat,{value}\n")
    for file, place in (("golden.json", "a[0]"), ("golden.csv", "row 2, column 2")):
        assert compared(outputs, file, abs=0.001).within
        found = compared(outputs, file, abs=0.00001)
        assert (found.outside, found.first_outside) == (1, place)
    (outputs[1] / "golden.csv").write_text("image,score\ndog,0.5\n")
    assert compared(outputs, "golden.csv", abs=1).first_outside == "row 2, column 1"
    (outputs[1] / "golden.json").write_text(json.dumps({"a": [0.5], "b": None}))
    assert compared(outputs, "golden.json", abs=1).problem == "not of one structure, from a[1]"


def test_what_can_not_be_read_is_different(outputs: tuple[Path, Path], tmp_path: Path) -> None:
    save(outputs, [1], [1])
    assert compared(outputs, "other.npy", abs=1).problem == "an output has no file other.npy"
    (outputs[1] / "golden.npy").write_bytes(b"\x93NUMPY broken")
    assert compared(outputs, abs=1).problem
    (tmp_path / "secret.npy").write_bytes((outputs[0] / "golden.npy").read_bytes())
    (outputs[1] / "golden.npy").unlink()
    (outputs[1] / "golden.npy").symlink_to(tmp_path / "secret.npy")
    assert compared(outputs, abs=1).problem == "golden.npy leads out of the output"
    for output in outputs:
        (output / "model.bin").write_bytes(b"\0\1")
    assert compared(outputs, "model.bin", abs=1).problem == (
        "model.bin is neither a file of arrays nor .json, .csv or .tsv"
    )


def a_recipe(level: str, verify: str) -> Recipe:
    text = f"""
schema = 1
model.name = "m"
environment = {{ python = "3.11", packages = [] }}
stages.train.run = ["true"]
determinism.level = "{level}"
{verify}
"""
    return parse_recipe(text.encode(), PurePosixPath("recipe.toml"))


PREDICTIONS = '[verify.predictions.train]\nfile = "golden.npy"\nabs = 0.1\n'


def result(name: str, path: Path | None, **metrics: float) -> Result:
    return Result(output=Digest.of(name.encode()), metrics=metrics, path=path)


def test_predictions_and_metrics_must_both_hold(outputs: tuple[Path, Path]) -> None:
    recipe = a_recipe("functional", f"{PREDICTIONS}[verify.metrics]\nloss = {{ abs = 1 }}\n")
    save(outputs, [1.0], [1.05])

    def words(loss: float) -> Compared:
        first, second = result("a", outputs[0], loss=1), result("b", outputs[1], loss=loss)
        return compare_results(first, second, recipe, "train", same_class=True)

    assert words(2).agreement is Agreement.WITHIN_TOLERANCE
    assert words(2.5).agreement is Agreement.DIFFERENT
    save(outputs, [1.0], [1.2])
    assert words(2).agreement is Agreement.DIFFERENT
    assert breaks(words(2), Level.FUNCTIONAL)


def test_predictions_alone_decide_a_stage_without_metrics(outputs: tuple[Path, Path]) -> None:
    recipe = a_recipe("functional", PREDICTIONS)
    save(outputs, [1.0], [1.05])
    first, second = result("a", outputs[0]), result("b", outputs[1])
    found = compare_results(first, second, recipe, "train", same_class=True)
    assert found.agreement is Agreement.WITHIN_TOLERANCE
    save(outputs, [1.0], [1.2])
    found = compare_results(first, second, recipe, "train", same_class=True)
    assert found.agreement is Agreement.DIFFERENT
    assert breaks(found, Level.FUNCTIONAL)
    assert not breaks(found, Level.RECORDED)


def test_predictions_of_an_output_that_is_not_here_are_unchecked(
    outputs: tuple[Path, Path],
) -> None:
    recipe = a_recipe("functional", PREDICTIONS)
    first, second = result("a", None, loss=1), result("b", outputs[1], loss=1)
    found = compare_results(first, second, recipe, "train", same_class=True)
    assert found.agreement is Agreement.WITHIN_TOLERANCE
    assert (found.predictions, found.unchecked) == (None, "golden.npy")


def test_identical_bits_need_no_predictions(outputs: tuple[Path, Path]) -> None:
    recipe = a_recipe("bitwise", PREDICTIONS)
    one = result("a", outputs[0])
    assert compare_results(one, one, recipe, "train", same_class=True) == (
        Compared(agreement=Agreement.IDENTICAL)
    )


def test_between_two_classes_metrics_are_compared_at_every_level() -> None:
    recipe = a_recipe("bitwise", "")
    first, second = result("a", None, loss=1), result("b", None, loss=1)
    here = compare_results(first, second, recipe, "train", same_class=True)
    there = compare_results(first, second, recipe, "train", same_class=False)
    assert (here.agreement, there.agreement) == (Agreement.DIFFERENT, Agreement.WITHIN_TOLERANCE)
    assert breaks(here, Level.BITWISE)
    other = result("b", None, loss=1.0001)
    found = compare_results(first, other, recipe, "train", same_class=False)
    assert found.agreement is Agreement.DIFFERENT
