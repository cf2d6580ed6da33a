"""What is promised at each level, what is expected on another class, and where that is shown."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from conftest import Tiny

from modelbuild.spec.lock import Lock
from modelbuild.spec.lock_file import parse_lock, render_lock
from modelbuild.spec.numeric_class import NumericClass
from modelbuild.store.store import Store

DRIFTING = """\
import json, os, sys, time

out = sys.argv[3]
json.dump({"scores": [1 + time.time_ns() % 1000 * 1e-6, 2]}, open(out + "/golden.json", "w"))
json.dump({"weight": 1}, open(out + "/model.json", "w"))
json.dump({"loss": 1}, open(out + "/metrics.json", "w"))
"""


def lock_of(tiny: Tiny) -> Lock:
    return parse_lock((tiny.root / "model.lock").read_bytes())


def move_to_another_class(tiny: Tiny, *, probes: str) -> str:
    """Claims and probes of the lock, as if another machine had made them. Its class."""
    lock = lock_of(tiny)
    [(key, facts)] = lock.classes.items()
    another = NumericClass({**facts, "caches": "L1d 1K", "kernel": "5.10"})
    recipe = lock.recipes["tiny"]
    stages = {
        name: replace(
            stage, claims=tuple(replace(c, numeric_class=another.key) for c in stage.claims)
        )
        for name, stage in recipe.stages.items()
    }
    [(name, here)] = lock.probes[key].items()
    if probes == "other":
        here = replace(here, digest="0" * 12, operations={"libm": "0000"})
    lock = replace(
        lock,
        recipes={"tiny": replace(recipe, stages=stages)},
        classes={another.key: another.facts},
        probes={another.key: {name: here}} if probes != "unknown" else {},
    )
    (tiny.root / "model.lock").write_bytes(render_lock(lock))
    return another.key


FORECASTS = {
    "same": ("identical", "the one probe gives the same bits: expect identical bits"),
    "other": (
        "different",
        "1 of 1 probes (libm) give other bits: expect different bits",
    ),
    "unknown": (None, "no probes to compare: bits may differ"),
}


@pytest.mark.parametrize("probes", FORECASTS)
def test_on_another_class_verify_says_beforehand_what_to_expect(
    tiny: Tiny, store: Store, probes: str
) -> None:
    tiny.build()
    here = next(iter(lock_of(tiny).classes))
    other = move_to_another_class(tiny, probes=probes)
    shutil.rmtree(store.root / "realisations")
    bits, words = FORECASTS[probes]
    ran = tiny.run("verify", "--rebuild", "--json")
    assert ran.code == 0, ran.err
    assert ran.err.startswith(
        f"tiny:train: the first result is of numeric class {other}, this machine of {here};"
        f" other facts: caches, kernel; {words}\n[1/2] tiny:train: building\n"
    )
    train = ran.json["recipes"]["tiny"]["stages"]["train"]
    assert train["rebuild"] == "identical", "bits are compared, whatever was expected"
    assert train["same_class"] is False
    expected = train["expected"]
    assert (expected["first_class"], expected["second_class"]) == (other, here)
    assert expected["bits"] == bits
    assert expected["facts"]["kernel"][0] == "5.10"
    assert sorted(expected["facts"]) == ["caches", "kernel"]


def test_on_the_same_class_nothing_needs_to_be_expected(tiny: Tiny) -> None:
    tiny.build()
    ran = tiny.run("verify", "--rebuild", "--json")
    assert ran.json["recipes"]["tiny"]["stages"]["train"]["expected"] is None
    assert "numeric class" not in ran.err


def test_build_says_what_to_expect_too(tiny: Tiny, store: Store) -> None:
    tiny.build()
    other = move_to_another_class(tiny, probes="same")
    shutil.rmtree(store.root / "realisations")
    ran = tiny.run("build")
    assert f"tiny:train: the first result is of numeric class {other}" in ran.err
    assert "expect identical bits\n[1/2] tiny:train: building" in ran.err


def test_where_bits_differ_on_another_class_metrics_are_compared(tiny: Tiny, store: Store) -> None:
    tiny.write("train.py", DRIFTING)
    tiny.build()
    move_to_another_class(tiny, probes="other")
    shutil.rmtree(store.root / "realisations")
    ran = tiny.run("verify", "--rebuild", "--json")
    assert ran.code == 0
    train = ran.json["recipes"]["tiny"]["stages"]["train"]
    assert train["rebuild"] == "within tolerance"
    assert train["metrics"] == [
        {"name": "loss", "agreement": "identical", "first": 1.0, "second": 1.0}
    ]


def functional(tiny: Tiny, tolerance: str) -> None:
    tiny.write("train.py", DRIFTING)
    tiny.replace("recipe.toml", "seed = 7", 'seed = 7\nlevel = "functional"')
    with (tiny.root / "recipe.toml").open("a") as recipe:
        recipe.write(f'\n[verify.predictions.train]\nfile = "golden.json"\n{tolerance}\n')


def test_predictions_within_their_tolerance_hold_at_level_functional(tiny: Tiny) -> None:
    functional(tiny, "abs = 0.001")
    tiny.build()
    ran = tiny.run("verify", "--rebuild")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("tiny: lock current, level functional\n")
    assert "rebuild within tolerance of the output in the store" in ran.out
    assert "predictions golden.json: all 2 within tolerance, at most " in ran.out


def test_predictions_outside_of_it_do_not_although_all_metrics_are_equal(tiny: Tiny) -> None:
    functional(tiny, "abs = 1e-12")
    tiny.build()
    ran = tiny.run("verify", "--rebuild", "--json")
    assert ran.code == 7
    train = ran.json["recipes"]["tiny"]["stages"]["train"]
    assert train["rebuild"] == "different"
    predictions = train["predictions"]
    assert (predictions["outside"], predictions["first_outside"]) == (1, "scores[0]")


def test_a_claim_alone_leaves_predictions_unchecked(tiny: Tiny, store: Store) -> None:
    functional(tiny, "abs = 1e-12")
    tiny.build()
    shutil.rmtree(store.root / "realisations")
    for output in (store.root / "objects").glob("*-tiny-train"):
        store.set_aside(output)
    ran = tiny.run("verify", "--rebuild")
    assert ran.code == 0, ran.err
    assert "rebuild within tolerance of the claim\n" in ran.out
    assert "      predictions golden.json: unchecked, the first output is not here\n" in ran.out


def test_predictions_that_a_stage_does_not_write_are_refused(tiny: Tiny) -> None:
    functional(tiny, "abs = 1")
    tiny.replace("recipe.toml", "golden.json", "golden.npy")
    ran = tiny.run("build")
    assert ran.code == 3
    assert ran.err.endswith(
        "error: recipe.toml:32: stage 'train' wrote no file 'golden.npy'\n"
        "  found: golden.json, metrics.json, model.json\n"
    )


def test_an_allowed_operation_lowers_the_level_where_everyone_sees_it(tiny: Tiny) -> None:
    before = tiny.build()["train"]["derivation"]
    assert 'level = "bitwise"\n' in (tiny.root / "model.lock").read_text()
    tiny.replace("recipe.toml", "seed = 7", 'seed = 7\nlevel = "functional"\nallow = ["b", "a"]')
    ran = tiny.run("lock", "--check")
    assert ran.code == 4
    assert "level, allowed operations" in ran.err
    ran = tiny.run("build")
    assert ran.code == 0, ran.err
    assert ran.err.endswith("\ntiny: level functional, allows b, a\n")
    text = (tiny.root / "model.lock").read_text()
    assert '\nlevel = "functional"\nallow = [\n  "a",\n  "b",\n]\n' in text
    record = tiny.run("build", "--json").json
    assert (record["level"], record["allow"]) == ("functional", ["b", "a"])
    assert record["stages"]["train"]["derivation"] != before
    verified = tiny.run("verify", "--json").json["recipes"]["tiny"]
    assert (verified["level"], verified["allow"]) == ("functional", ["b", "a"])


def test_tf32_and_mkl_are_in_lock_and_derivation(tiny: Tiny) -> None:
    tiny.run("lock")
    before = lock_of(tiny).recipes["tiny"]
    text = (tiny.root / "model.lock").read_text()
    assert "tf32" not in text
    assert "mkl" not in text
    tiny.replace("recipe.toml", "seed = 7", 'seed = 7\ntf32 = "script"')
    assert tiny.run("lock", "--check").code == 0
    tiny.replace("recipe.toml", 'tf32 = "script"', "tf32 = false")
    ran = tiny.run("lock", "--check")
    assert ran.code == 4
    assert "tiny: tf32\n" in ran.err
    tiny.run("lock")
    off = lock_of(tiny).recipes["tiny"]
    assert off.tf32 == "false"
    assert '\nlevel = "bitwise"\ntf32 = false\n' in (tiny.root / "model.lock").read_text()
    assert off.stages["train"].derivation != before.stages["train"].derivation
    tiny.replace("recipe.toml", "[determinism]", '[hardware]\nmkl = "unchanged"\n\n[determinism]')
    assert "tiny: hardware\n" in tiny.run("lock", "--check").err
    tiny.run("lock")
    unchanged = lock_of(tiny).recipes["tiny"]
    assert unchanged.hardware["mkl"] == "unchanged"
    assert unchanged.stages["train"].derivation != off.stages["train"].derivation


def test_a_lower_level_alone_makes_no_stage_stale(tiny: Tiny) -> None:
    tiny.build()
    claims = lock_of(tiny).recipes["tiny"].stages
    tiny.replace("recipe.toml", "seed = 7", 'seed = 7\nlevel = "recorded"')
    assert {each["how"] for each in tiny.build().values()} == {"valid"}
    assert lock_of(tiny).recipes["tiny"].stages == claims
    assert 'level = "recorded"\n' in (tiny.root / "model.lock").read_text()
