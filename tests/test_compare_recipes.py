"""`modelbuild compare`: two recipes on the same seeds, and what of a difference is noise."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import Tiny
from small_recipes import small_recipe

import modelbuild
from modelbuild.errors import StageFailedError

PAGE = (Path(__file__).parent.parent / "docs" / "commands.md").read_text()

LEARN = """\
import json, math, os, random, sys

lr, out = float(sys.argv[1]), sys.argv[2]
# Two clouds of points, the same for everyone; only the way of learning depends on the seed.
cloud = random.Random(1)
points = [(cloud.gauss(side, 1.5), cloud.gauss(-side, 1.5), side > 0) for side in (1, -1) * 150]
train, test = points[:200], points[200:]
a, b, c = (random.gauss(0, 0.05) for _ in range(3))
for step in range(300):
    x, y, label = random.choice(train)
    error = label - 1 / (1 + math.exp(-(a * x + b * y + c)))
    a, b, c = a + lr * error * x, b + lr * error * y, c + lr * error
loss = sum(math.log1p(math.exp((1 - 2 * label) * (a * x + b * y + c))) for x, y, label in test)
right = sum((a * x + b * y + c > 0) == label for x, y, label in test)
json.dump([a, b, c], open(out + "/model.json", "w"))
metrics = {"accuracy": right / len(test), "loss": loss / len(test)}
json.dump(metrics, open(out + "/metrics.json", "w"))
"""

STAGE = """\
[stages.NAME]
run = ["python", "train.py", "{params.lr}", "{out}"]
metrics = "metrics.json"
"""


def add_recipe(tiny: Tiny, name: str, lr: float, *, stage: str = "train", code: str = "") -> None:
    text = small_recipe(name, f"[params]\nlr = {lr}", STAGE.replace("NAME", stage))
    tiny.write(f"{name}/recipe.toml", text)
    tiny.write(f"{name}/train.py", code + LEARN)


@pytest.fixture
def pair(tiny: Tiny) -> Tiny:
    """A recipe that learns too slowly, and one that does not."""
    for name in ("recipe.toml", "train.py", "evaluate.py", "numbers.txt"):
        (tiny.root / name).unlink()
    add_recipe(tiny, "slow", 0.0005)
    add_recipe(tiny, "quick", 0.05, stage="fit")
    tiny.write("model.lock", "schema = 1\n")
    assert tiny.run("lock").code == 0
    return tiny


def test_a_real_gain_is_larger_than_seed_noise(pair: Tiny) -> None:
    lock = (pair.root / "model.lock").read_bytes()
    ran = pair.run("compare", "slow", "quick", "--seeds", "5", "--json")
    assert ran.code == 0, ran.err
    found = ran.json
    assert found["seeds"] == [0, 1, 2, 3, 4]
    assert found["notes"] == [
        "2 metrics: one in 20 differs by chance alone, which the verdicts allow for"
    ]
    loss = found["metrics"]["loss"]
    assert loss["verdict"] == "larger than seed noise"
    assert loss["lower"] == 5
    assert loss["difference"] == pytest.approx(loss["second"] - loss["first"])
    assert loss["low"] < loss["difference"] < loss["high"] < 0
    assert loss["first"] == loss["first_spread"]["mean"]
    documented = re.search(r"```json\n(.*?)```", PAGE.partition("## modelbuild compare")[2], re.S)
    assert documented
    page = json.loads(documented[1])
    assert found.keys() == page.keys()
    assert loss.keys() == page["metrics"]["accuracy"].keys()
    assert (pair.root / "model.lock").read_bytes() == lock

    again = pair.run("compare", "slow/recipe.toml", "quick", "--seeds", "5", "--metric", "loss")
    assert "building" not in again.err
    first, second, sentence, *_ = again.out.splitlines()
    assert (first, second) == ("A: slow", "B: quick")
    assert re.fullmatch(
        r"loss: B is lower by [\d.]+ \(95 % CI [\d.]+ to [\d.]+; 5 seeds; p [\d.]+\): "
        r"larger than seed noise",
        sentence,
    )


def test_what_only_draws_other_numbers_is_not_distinguishable_from_noise(pair: Tiny) -> None:
    add_recipe(pair, "other", 0.05, code="import random\nrandom.random()\n")
    pair.run("lock")
    ran = pair.run("compare", "quick", "other", "--seeds", "4", "--metric", "loss")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[2].endswith(": not distinguishable from seed noise")
    assert ran.out.endswith(
        "note: with fewer than 5 seeds only large differences can be told from noise\n"
    )


def test_an_experiment_is_compared_with_its_recipe(pair: Tiny) -> None:
    ran = pair.run("compare", "quick", "--set", "params.lr=0.0005", "--seeds", "2", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["second"] == {"recipe": "quick", "settings": ["params.lr=0.0005"]}
    assert ran.json["metrics"]["loss"]["higher"] == 2
    same = pair.run("compare", "quick", "quick", "--set", "params.lr=0.05", "--seeds", "2")
    assert "\nloss: the same with all 2 seeds\n" in same.out


def test_one_seed_each_says_nothing_of_noise_but_shows_what_is_on_record(pair: Tiny) -> None:
    assert pair.run("build", "slow").code == 0
    assert pair.run("verify", "slow", "--seeds", "2").code == 0
    ran = pair.run("compare", "slow", "quick", "--metric", "loss")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert re.fullmatch(r"loss: A [\d.]+, B [\d.]+: B is lower by [\d.]+", lines[2])
    assert re.fullmatch(r"    A: mean .* \(2 seeds: .*\)", lines[3])
    assert lines[4:] == [
        "One seed each: whether a difference is larger than seed noise is not known. "
        "To find out: --seeds 5"
    ]


def test_a_seed_that_fails_with_one_recipe_is_left_out_of_both(pair: Tiny) -> None:
    fails = "import os, sys\nif os.environ['MODELBUILD_SEED'] == '1':\n    sys.exit('no')\n"
    add_recipe(pair, "quick", 0.3, code=fails)
    pair.run("lock")
    ran = pair.run("compare", "slow", "quick", "--seeds", "3", "--json")
    assert ran.code == 6
    assert ran.json["seeds"] == [0, 2]
    assert "seed 1 failed with B: left out of both" in ran.json["notes"]
    assert ran.json["metrics"]["loss"]["first_spread"]["seeds"] == 2
    assert "error: quick with seed=1: quick/recipe.toml:17: stage 'train' failed" in ran.err
    turned = pair.run("compare", "quick", "slow", "--seeds", "3", "--json")
    assert turned.json["seeds"] == [0, 2]
    assert "seed 1 failed with A: left out of both" in turned.json["notes"]


def test_metrics_that_only_one_has_are_named_and_those_of_several_stages_told_apart(
    tiny: Tiny,
) -> None:
    tiny.replace("evaluate.py", '"score"', '"loss"')
    tiny.build()
    add_recipe(tiny, "other", 0.3, stage="evaluate")
    tiny.run("lock")
    ran = tiny.run("compare", "tiny", "other")
    assert ran.code == 0, ran.err
    assert re.search(r"^evaluate:loss: A 0.971, B ", ran.out, re.MULTILINE)
    assert "note: train:loss: only A has it\nnote: accuracy: only B has it\n" in ran.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("slow",),
            2,
            "error: there is nothing to compare with\n"
            "  wanted: a second recipe, or --set NAME=VALUE for the first one\n",
        ),
        (
            ("slow", "--set", "seed=3", "--seeds", "5"),
            2,
            "error: --set seed=3: both recipes are built with the same seeds\n"
            "How many is said by --seeds.\n",
        ),
        (
            ("slow", "quick", "--seeds", "1"),
            2,
            "error: the spread of fewer than two seeds is not known\n"
            "  wanted: --seeds 2 or more; 5 tell more\n  found:  1\n",
        ),
        (
            ("slow", "quick", "--metric", "f1", "--quiet"),
            2,
            "error: there is no metric 'f1'\n  found: accuracy, loss\n",
        ),
    ],
)
def test_what_can_not_be_compared_is_said(
    pair: Tiny, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ran = pair.run("compare", *arguments)
    assert (ran.code, ran.err) == (code, message)


def test_a_recipe_that_is_not_locked_as_it_stands_is_not_compared(pair: Tiny) -> None:
    pair.replace("quick/recipe.toml", "lr = 0.05", "lr = 0.04")
    ran = pair.run("compare", "slow", "quick", "--seeds", "3")
    assert ran.code == 4
    assert ran.err == (
        "error: model.lock is out of date\n"
        "  quick: parameters: lr\n"
        "To bring it up to date: modelbuild lock\n"
    )


def test_the_library_gives_typed_records(pair: Tiny) -> None:
    fails = "import os, sys\nif os.environ['MODELBUILD_SEED'] == '2':\n    sys.exit('no')\n"
    add_recipe(pair, "quick", 0.3, code=fails)
    pair.run("lock")
    report = modelbuild.compare(pair.root / "slow", pair.root / "quick", seeds=3)
    assert (report.first.name, report.second.name, report.seeds) == ("slow", "quick", (0, 1))
    paired = report.metrics["loss"].paired
    assert paired
    assert paired.difference.mean == report.metrics["loss"].difference < 0
    assert [type(problem) for problem in report.problems] == [StageFailedError]
    assert report.exit_code == 6
