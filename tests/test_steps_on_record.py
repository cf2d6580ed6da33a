"""What verify says by the steps on record, before it runs anything for `--explain`.

The stages write their recordings themselves: as small as can be, and without torch.
"""

from __future__ import annotations

from conftest import RECIPE, Tiny
from test_steps import HEAD, steps

from modelbuild.runtime.v1 import trace_file
from modelbuild.verify.steps import ROUND, STEP

TRAIN = """\
import struct, sys, time

head, form, size = {head!r}, {form!r}, {size}
records = bytes.fromhex("{records}")
last = bytearray(records[-size:])
values = list(struct.unpack(form, last))
values[{column}] = time.time_ns() % 1_000_000_007
with open("/build/trace/steps-0.bin", "wb") as file:
    file.write(head.encode() + records[:-size] + struct.pack(form, *values))
with open(sys.argv[1] + "/model.txt", "w") as file:
    file.write(str(time.time_ns()))
"""
"""Differs from run to run in the last record, and in its output."""


def training(tiny: Tiny, kind: int, *, column: str = "loss", count: int = 6) -> None:
    packed = b"".join(
        trace_file.RECORD.pack(*each._replace(kind=kind, source=0)) for each in steps(count)
    )
    code = TRAIN.format(
        head=HEAD,
        form=trace_file.RECORD.format,
        size=trace_file.RECORD.size,
        records=packed.hex(),
        column=trace_file.COLUMNS.index(column),
    )
    stage = '[stages.train]\nrun = ["python", "train.py", "{out}"]\n'
    tiny.write("recipe.toml", RECIPE.partition("[data.numbers]")[0] + stage)
    tiny.write("train.py", code)
    tiny.build()


def test_a_failed_rebuild_names_the_command_that_finds_the_operation(tiny: Tiny) -> None:
    training(tiny, STEP)
    ran = tiny.run("verify", "--rebuild")
    assert ran.code == 7
    assert "first different step: 6 of 6: the loss (arithmetic of the forward pass)" in ran.out
    assert ran.err.endswith("modelbuild verify --explain tiny finds the operation of that step.\n")


def test_of_rounds_it_names_no_command_that_looks_at_operations(tiny: Tiny) -> None:
    training(tiny, ROUND, column="parameters")
    ran = tiny.run("verify", "--rebuild")
    assert ran.code == 7
    assert "first different round: 6 of 6: the trees (arithmetic)" in ran.out
    assert "--explain" not in ran.err


def test_a_step_that_the_training_does_not_have_is_refused_before_anything_runs(
    tiny: Tiny,
) -> None:
    training(tiny, STEP)
    ran = tiny.run("verify", "--explain", "--step", "99")
    assert ran.code == 2
    assert ran.err == (
        "error: modelbuild verify --explain: there is no step 99 in tiny\n  train: it has 6 steps\n"
    )
    assert "\n      step 99: it has 6 steps\n" in ran.out
    after_the_last = tiny.run("verify", "--explain", "--step", "7")
    assert after_the_last.code == 0
    assert "tiny:train: run 1 up to step 7" in after_the_last.err


def test_a_stage_that_records_nothing_does_not_hide_that_there_is_no_such_step(
    tiny: Tiny,
) -> None:
    training(tiny, STEP)
    plain = '\n[stages.plain]\nrun = ["touch", "{out}/file"]\n'
    tiny.write("recipe.toml", (tiny.root / "recipe.toml").read_text() + plain)
    tiny.build()
    ran = tiny.run("verify", "--explain", "--step", "99")
    assert ran.code == 2
    assert "there is no step 99 in tiny\n  train: it has 6 steps\n" in ran.err


def test_a_step_of_rounds_is_refused(tiny: Tiny) -> None:
    training(tiny, ROUND)
    ran = tiny.run("verify", "--explain", "--step", "1")
    assert ran.code == 2
    assert "  train: it has 6 rounds, and only the operations of torch are recorded\n" in ran.err


def test_of_rounds_explain_says_beforehand_what_it_can_find_and_builds_once(tiny: Tiny) -> None:
    training(tiny, ROUND, column="parameters")
    ran = tiny.run("verify", "--explain")
    assert ran.code == 7
    assert ran.err.startswith(
        "tiny:train: it is built again to see in which round it goes apart; only the operations of"
        " torch are recorded\n"
    )
    says = "first different round: 6 of 6: the trees (arithmetic)"
    explained = f"      not explained: {says}; only the operations of torch are recorded\n"
    assert explained in ran.out
    ran = tiny.run("verify", "--explain")
    assert explained in ran.out
    assert "built" not in ran.err, "two builds on record differ"
