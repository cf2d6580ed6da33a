"""What two recordings of trainings say of each other: synthetic ones, damaged ones, large ones."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

import pytest

from modelbuild.runtime.v1 import trace_file
from modelbuild.verify.steps import BACKWARD, FIT, ROUND, START, STEP, Record, compare_steps

HEAD = json.dumps({"modelbuild_trace": 1, "every": 1, "columns": list(trace_file.COLUMNS)}) + "\n"
PLAIN = Record(STEP, 15, 1, 1, 1, 10, 20, 30, 40, 50, 60, 70, 0.5)


def write(folder: Path, records: list[Record], *, place: str = "0", head: str = HEAD) -> Path:
    folder.mkdir(exist_ok=True)
    packed = b"".join(trace_file.RECORD.pack(*record) for record in records)
    (folder / f"steps-{place}.bin").write_bytes(head.encode() + packed)
    return folder


def steps(count: int) -> list[Record]:
    return [PLAIN._replace(loss=number, value=number / 2) for number in range(count)]


def said(tmp_path: Path, first: list[Record], second: list[Record]) -> str:
    return compare_steps(write(tmp_path / "1", first), write(tmp_path / "2", second)).says


def with_change(step: int, count: int = 390, **columns: int) -> list[Record]:
    """From this step on."""
    changed = steps(count)
    return [
        *changed[: step - 1],
        *(each._replace(**columns) for each in changed[step - 1 :]),
    ]


@pytest.mark.parametrize(
    ("changed", "column", "went_first", "what"),
    [
        ({"batch": 1}, "batch", "data order", "the batch (data order)"),
        (
            {"batch": 1, "numpy": 1, "loss": 1},
            *("random", "random numbers", "the random numbers of numpy (random numbers)"),
        ),
        (
            {"loss": 9999, "gradients": 1, "parameters": 1},
            *("loss", "arithmetic", "the loss (arithmetic of the forward pass)"),
        ),
        (
            {"gradients": 1, "parameters": 1},
            *(
                "gradients",
                "arithmetic",
                "the gradients (backward pass, or what changes them before the step)",
            ),
        ),
        (
            {"parameters": 1},
            *("parameters", "arithmetic", "the parameters (arithmetic of the optimiser)"),
        ),
    ],
)
def test_the_column_that_went_first_is_told(
    tmp_path: Path, changed: dict[str, int], column: str, went_first: str, what: str
) -> None:
    first = write(tmp_path / "1", steps(390))
    found = compare_steps(first, write(tmp_path / "2", with_change(12, **changed)))
    assert found.says == f"first different step: 12 of 390: {what}"
    assert found.difference
    assert (found.difference.step, found.difference.steps) == (12, 390)
    assert (found.difference.column, found.difference.went_first) == (column, went_first)


def test_trainings_that_are_identical_step_by_step_differ_after_the_last_one(
    tmp_path: Path,
) -> None:
    says = said(tmp_path, steps(390), steps(390))
    assert says == "all 390 steps are identical: the difference came after the last one"


def test_a_training_with_more_steps(tmp_path: Path) -> None:
    says = said(tmp_path, steps(4), steps(5))
    assert says == "first different step: 5 of 4: the first one ends after 4 steps (data order)"
    says = said(tmp_path, steps(4), steps(3))
    assert says == "first different step: 4 of 4: the second one ends after 3 steps (data order)"


def test_parameters_that_differ_before_the_first_step(tmp_path: Path) -> None:
    start = Record(START, 8, 1, 0, 0, 0, 20, 30, 40, 0, 0, 70, 0.0)
    says = said(tmp_path, [start, *steps(3)], [start._replace(parameters=1), *steps(3)])
    assert says == "first different step: before the first one: the parameters (arithmetic)"


def test_passes_between_steps_belong_to_the_next_step(tmp_path: Path) -> None:
    passes = [PLAIN._replace(kind=BACKWARD, has=3), PLAIN] * 5
    other = [*passes]
    other[6] = other[6]._replace(batch=1)
    assert said(tmp_path, passes, other) == "first different step: 4 of 5: the batch (data order)"


@pytest.mark.parametrize(("kind", "unit"), [(BACKWARD, "step"), (FIT, "fit")])
def test_a_training_without_an_optimiser_counts_what_it_has(
    tmp_path: Path, kind: int, unit: str
) -> None:
    first = [each._replace(kind=kind) for each in steps(9)]
    second = [each._replace(kind=kind) for each in with_change(4, 9, loss=77)]
    assert said(tmp_path, first, second) == (
        f"first different {unit}: 4 of 9: the loss (arithmetic"
        f"{' of the forward pass' if kind == BACKWARD else ''})"
    )


@pytest.mark.parametrize(
    ("changed", "column", "went_first", "what"),
    [
        ({"batch": 1}, "batch", "data order", "the data or its labels (data order)"),
        (
            {"torch": 1, "gradients": 1, "parameters": 1},
            *("random", "random numbers", "the seeds of the booster (random numbers)"),
        ),
        ({"numpy": 1}, "random", "random numbers", "the random numbers of numpy (random numbers)"),
        (
            {"gradients": 1, "parameters": 1},
            *("settings", "settings", "the settings of the booster (settings)"),
        ),
        ({"parameters": 1}, "trees", "arithmetic", "the trees (arithmetic)"),
    ],
)
def test_a_round_of_boosting_is_told_by_what_its_columns_hold(
    tmp_path: Path, changed: dict[str, int], column: str, went_first: str, what: str
) -> None:
    first, second = (
        [each._replace(kind=ROUND) for each in recorded]
        for recorded in (steps(200), with_change(37, 200, **changed))
    )
    fits = [PLAIN._replace(kind=FIT, has=9)] * 2
    written = [write(tmp_path / "1", fits + first), write(tmp_path / "2", fits + second)]
    found = compare_steps(*written).difference
    assert str(found) == f"first different round: 37 of 200: {what}"
    assert found
    assert (found.step, found.steps, found.unit) == (37, 200, "round")
    assert (found.column, found.went_first) == (column, went_first)


def test_steps_rounds_and_fits_of_one_process_are_counted_apart(tmp_path: Path) -> None:
    rounds = [each._replace(kind=ROUND) for each in steps(20)]
    both = [*steps(30), PLAIN._replace(kind=FIT), *rounds]
    other = [*both]
    other[30] = other[30]._replace(parameters=1)
    assert said(tmp_path, both, other) == (
        "first different fit: 1 of 1: the parameters (arithmetic)"
    )
    assert said(tmp_path, both, both[:-1]) == (
        "first different round: 20 of 20: the second one ends after 19 rounds (data order)"
    )
    assert said(tmp_path, rounds, rounds) == (
        "all 20 rounds are identical: the difference came after the last one"
    )


def test_another_number_of_passes(tmp_path: Path) -> None:
    says = said(tmp_path, steps(5), with_change(3, 5, calls=2))
    assert says == (
        "first different step: 3 of 5: other batches, or another number of passes (data order)"
    )


def test_of_two_strides_only_what_both_have_is_compared(tmp_path: Path) -> None:
    sparse = [
        each if number % 5 == 0 else each._replace(has=3, gradients=0, parameters=0)
        for number, each in enumerate(steps(20), 1)
    ]
    assert said(tmp_path, steps(20), sparse).startswith("all 20 steps are identical")
    changed = with_change(7, 20, parameters=1)
    assert "step: 10 of 20: the parameters" in said(tmp_path, changed, sparse)


def test_of_several_processes_the_earliest_step_is_told(tmp_path: Path) -> None:
    first, second = (
        write(tmp_path / "1", steps(9)),
        write(tmp_path / "2", with_change(8, 9, batch=1)),
    )
    write(first, steps(9), place="0.2")
    write(second, with_change(5, 9, gradients=1), place="0.2")
    assert compare_steps(first, second).says == (
        "first different step: 5 of 9 in process 0.2: "
        "the gradients (backward pass, or what changes them before the step)"
    )


def test_a_process_that_is_in_one_recording_only_is_told(tmp_path: Path) -> None:
    first, second = write(tmp_path / "1", steps(9)), write(tmp_path / "2", steps(9))
    write(second, steps(2), place="0.1")
    assert compare_steps(first, second).says == (
        "steps of process 0.1 were recorded in the second build only"
    )


def test_a_record_that_was_cut_does_not_count(tmp_path: Path) -> None:
    first, second = write(tmp_path / "1", steps(9)), write(tmp_path / "2", steps(9))
    with (second / "steps-0.bin").open("ab") as file:
        file.write(bytes(10))
    assert compare_steps(first, second).says.startswith("all 9 steps are identical")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 5000,
        b"{}\n",
        b"[]\n",
        b'{"modelbuild_trace": 2, "columns": []}\n',
        b"[" * 4000,
    ],
)
def test_what_is_no_recording_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    first, second = write(tmp_path / "1", steps(9)), write(tmp_path / "2", [])
    (second / "steps-0.bin").write_bytes(content)
    assert compare_steps(first, second).says == (
        "the steps of process 0 can't be compared: "
        "this is no recording that this modelbuild can read"
    )


def test_where_nothing_was_recorded_it_is_said(tmp_path: Path) -> None:
    first = write(tmp_path / "1", steps(9))
    assert compare_steps(first, None).says == "no steps were recorded in the second one"
    assert compare_steps(None, first).says == "no steps were recorded in the first one"
    assert compare_steps(None, None).says == "no steps were recorded in either build"
    assert (
        compare_steps(first, tmp_path / "gone").says == "no steps were recorded in the second one"
    )


def test_a_million_steps_fit_in_100_mb_and_are_compared_in_constant_memory(tmp_path: Path) -> None:
    assert trace_file.RECORD.size * 1_000_000 < 100e6
    block = b"".join(trace_file.RECORD.pack(*record) for record in steps(100_000))
    for name, count in (("1", 10), ("2", 10)):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "steps-0.bin").open("wb") as file:
            file.write(HEAD.encode())
            for _ in range(count):
                file.write(block)
    with (tmp_path / "2" / "steps-0.bin").open("r+b") as file:
        file.seek(len(HEAD) + 999_999 * trace_file.RECORD.size + 12)
        file.write(b"\xff")
    assert (tmp_path / "1" / "steps-0.bin").stat().st_size < 100e6
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    says = compare_steps(tmp_path / "1", tmp_path / "2").says
    assert says.startswith("first different step: 1,000,000 of 1,000,000: ")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096
    assert time.monotonic() - started < 5
