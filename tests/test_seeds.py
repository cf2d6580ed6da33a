"""`verify --seeds`: what several seeds say, and what of it stands in the lock."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pytest
from conftest import Tiny
from test_bad_luck import UNSHARE, needs_mounts

from modelbuild import build
from modelbuild.build.seed_record import add_seeds
from modelbuild.spec.derivation import StageId
from modelbuild.spec.lock import Lock, LockedSeeds
from modelbuild.spec.lock_file import parse_lock
from modelbuild.spec.seed_statistics import summarise
from modelbuild.store.store import Store

PAGE = (Path(__file__).parent.parent / "docs" / "commands.md").read_text()
FAILS_WITH_9 = """\
import os, sys
if os.environ["MODELBUILD_SEED"] == "9":
    sys.exit("this seed does not converge")
"""


@pytest.fixture
def tiny(tiny: Tiny) -> Tiny:
    """With one stage only: what is tested here holds for each."""
    recipe = (tiny.root / "recipe.toml").read_text()
    tiny.write("recipe.toml", recipe.partition("\n[stages.evaluate]")[0])
    return tiny


def lock_of(tiny: Tiny) -> Lock:
    return parse_lock((tiny.root / "model.lock").read_bytes())


def seeds_in_lock(tiny: Tiny) -> dict[str, LockedSeeds]:
    return dict(lock_of(tiny).recipes["tiny"].stages["train"].seeds)


def losses(tiny: Tiny, seeds: range) -> list[float]:
    """As `build --set` finds them."""
    return [tiny.build("--set", f"seed={seed}")["train"]["metrics"]["loss"] for seed in seeds]


def before_train(tiny: Tiny, code: str) -> None:
    tiny.write("train.py", code + (tiny.root / "train.py").read_text())


def test_the_spread_over_seeds_is_told_and_kept_beside_the_claims(tiny: Tiny) -> None:
    tiny.build()
    claims = lock_of(tiny).recipes["tiny"].stages["train"].claims
    ran = tiny.run("verify", "--seeds", "5", "--json")
    assert ran.code == 0, ran.err
    for count in range(1, 6):
        assert f"tiny: seed {6 + count} ({count} of 5)\n" in ran.err
    verdict = ran.json["recipes"]["tiny"]
    assert verdict["seeds"] == {"asked": 5, "kept": True, "notes": []}
    found = verdict["stages"]["train"]["seeds"]["loss"]
    blocks = re.findall(r"```json\n(.*?)```", PAGE.partition("**Seeds.**")[2], re.DOTALL)
    assert verdict["seeds"].keys() == json.loads(blocks[0]).keys()
    assert found.keys() == json.loads(blocks[1])["accuracy"].keys()
    values = losses(tiny, range(7, 12))
    assert (found["own"], found["seeds"], found["usual"]) == (values[0], 5, True)
    assert found["mean"] == pytest.approx(mean(values))
    assert found["deviation"] == pytest.approx(stdev(values))
    assert (found["min"], found["max"]) == (min(values), max(values))
    half = 2.7764451 * stdev(values) / 5**0.5
    assert found["low"] == pytest.approx(mean(values) - half)
    assert found["high"] == pytest.approx(mean(values) + half)

    stage = lock_of(tiny).recipes["tiny"].stages["train"]
    kept = stage.seeds["loss"]
    assert stage.claims == claims
    assert (kept.derivation, kept.numeric_class) == (stage.derivation, claims[0].numeric_class)
    assert kept.statistics.mean == pytest.approx(mean(values), rel=1e-3)
    assert kept.values == tuple(values)


def test_a_second_call_builds_nothing_and_says_the_same(tiny: Tiny) -> None:
    tiny.build()
    first = tiny.run("verify", "--seeds", "3")
    lock = (tiny.root / "model.lock").read_bytes()
    second = tiny.run("verify", "--seeds", "3")
    assert "building" in first.err
    assert "building" not in second.err
    assert second.out == first.out
    assert (tiny.root / "model.lock").read_bytes() == lock


def test_build_and_verify_say_whether_the_recipes_seed_is_usual(tiny: Tiny) -> None:
    tiny.replace("train.py", "random.random()", "(0.1 * random.random() + (SEED == 7))")
    before_train(tiny, "import os\nSEED = int(os.environ['MODELBUILD_SEED'])\n")
    tiny.build()
    tiny.run("verify", "--seeds", "5")
    line = (
        "seeds: loss 3.1 is unusual: mean 0.7, deviation 1.3, 95 % CI -0.9 to 2.4 "
        "(5 seeds: 0.1 to 3.1)\n"
    )
    assert f"claim holds\n      {line}" in tiny.run("verify").out
    assert f"identical to the claim\n            {line}" in tiny.run("build").err
    assert tiny.build()["train"]["seeds"]["loss"]["usual"] is False


def test_a_script_that_sets_its_own_seed_is_found(tiny: Tiny) -> None:
    tiny.replace("train.py", "random.random()", "0.25")
    tiny.build()
    note = "train: all 3 seeds gave the same loss: does the script use {seed}?"
    ran = tiny.run("verify", "--seeds", "3", "--json")
    assert ran.json["recipes"]["tiny"]["seeds"]["notes"] == [note]
    assert ran.json["recipes"]["tiny"]["stages"]["train"]["seeds"]["loss"]["usual"] is None
    out = tiny.run("verify").out
    assert f"  seeds: {note}\n" in out, "said of what is on record too"
    assert "is usual" not in out


def test_a_metric_that_no_seed_changes_beside_one_that_does_asks_nothing(tiny: Tiny) -> None:
    tiny.replace("train.py", '{"loss": weight}', '{"loss": weight, "examples": 3}')
    tiny.build()
    ran = tiny.run("verify", "--seeds", "2", "--json")
    notes = ran.json["recipes"]["tiny"]["seeds"]["notes"]
    assert notes == ["train: all 2 seeds gave the same examples"]


def test_a_seed_that_fails_is_named_and_the_others_are_kept(tiny: Tiny) -> None:
    before_train(tiny, FAILS_WITH_9)
    tiny.build()
    lock = (tiny.root / "model.lock").read_bytes()
    ran = tiny.run("verify", "--seeds", "4", "--json")
    assert ran.code == 6
    assert ran.err.endswith(
        "error: tiny with seed=9: recipe.toml:23: stage 'train' failed\n"
        "  exit code: 1\n"
        "  printed:   this seed does not converge\n"
        "To read all that it printed: modelbuild log tiny:train\n"
        "This seed alone: modelbuild build recipe.toml --set seed=9\n"
    )
    verdict = ran.json["recipes"]["tiny"]
    assert verdict["seeds"] == {
        "asked": 4,
        "kept": False,
        "notes": [
            "seed 9 failed: what follows is of 3 of 4 seeds",
            "model.lock stays as it is",
        ],
    }
    assert verdict["stages"]["train"]["seeds"]["loss"]["seeds"] == 3
    assert verdict["stages"]["train"]["claim"] == "holds"
    assert (tiny.root / "model.lock").read_bytes() == lock
    assert tiny.build("--set", "seed=10")["train"]["how"] == "valid"


def test_a_metric_that_some_seeds_lack_is_said_and_not_kept(tiny: Tiny) -> None:
    tiny.replace("train.py", '{"loss": weight}', '{"loss": weight, **EXTRA}')
    before_train(
        tiny,
        "import os\nEXTRA = {} if os.environ['MODELBUILD_SEED'] == '8' else {'rare': 1.0}\n",
    )
    tiny.build()
    ran = tiny.run("verify", "--seeds", "3")
    assert ran.code == 0, ran.err
    assert "  seeds: train: rare is missing with seed 8\n" in ran.out
    assert "seeds: rare 1: mean 1, deviation 0, 95 % CI 1 to 1 (2 seeds: 1 to 1)" in ran.out
    assert seeds_in_lock(tiny).keys() == {"loss"}


def test_statistics_go_stale_with_the_derivation_and_come_back_with_it(tiny: Tiny) -> None:
    tiny.build()
    tiny.run("verify", "--seeds", "3")
    before = seeds_in_lock(tiny)
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    tiny.run("lock")
    assert seeds_in_lock(tiny) == before
    assert "seeds:" not in tiny.run("verify").out
    tiny.replace("recipe.toml", "lr = 0.25", "lr = 0.5")
    tiny.run("lock")
    assert "seeds: loss 0.97" in tiny.run("verify").out
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    tiny.build()
    assert seeds_in_lock(tiny) == {}


def test_a_stale_lock_is_said_before_any_seed_is_built(tiny: Tiny) -> None:
    tiny.build()
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    ran = tiny.run("verify", "--seeds", "3")
    assert ran.code == 4
    assert "seed 7" not in ran.err


@pytest.mark.parametrize("count", ["1", "0", "-3"])
def test_fewer_than_two_seeds_have_no_spread(tiny: Tiny, count: str) -> None:
    tiny.build()
    ran = tiny.run("verify", "--seeds", count)
    assert ran.code == 2
    assert ran.err == (
        "error: the spread of fewer than two seeds is not known\n"
        f"  wanted: --seeds 2 or more; 5 tell more\n  found:  {count}\n"
    )


def test_seeds_past_the_last_are_refused(tiny: Tiny) -> None:
    tiny.replace("recipe.toml", "seed = 7", "seed = 4294967295")
    tiny.build()
    ran = tiny.run("verify", "--seeds", "2")
    assert ran.code == 2
    assert ran.err == "error: there are not 2 seeds from 4294967295 on\n  last: 4294967295\n"


def test_a_lock_that_moved_on_meanwhile_gets_no_statistics(tiny: Tiny, store: Store) -> None:
    result = build(tiny.root / "recipe.toml", store=store.root)
    own = result.own_stages()["train"].realisation
    assert own is not None
    lock, identity = lock_of(tiny), StageId("tiny", "train")
    seeds = LockedSeeds(
        derivation=result.stages[identity].derivation,
        numeric_class=own.numeric_class,
        statistics=summarise([1.0, 2.0]),
    )
    other = replace(seeds, derivation=own.output)
    assert add_seeds(lock, identity, own, {"loss": other}) == lock
    added = add_seeds(lock, identity, own, {"loss": seeds})
    assert added.recipes["tiny"].stages["train"].current_seeds == {"loss": seeds}


@needs_mounts
def test_where_the_lock_can_not_be_written_the_spread_is_told_all_the_same(tiny: Tiny) -> None:
    tiny.build()
    lock = (tiny.root / "model.lock").read_bytes()
    here = shlex.quote(str(tiny.root))
    script = (
        f"mount --bind {here} {here} && mount -o remount,ro,bind {here} && cd {here} && "
        + shlex.join(tiny.command("verify", "--seeds", "2"))
    )
    done = subprocess.run([*UNSHARE, "sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "  seeds: model.lock can't be written: Read-only file system\n" in done.stdout
    assert "seeds: loss 0.97: mean 0.83" in done.stdout
    assert (tiny.root / "model.lock").read_bytes() == lock
