"""`modelbuild init --from`: a dvc.yaml, a list of requirements."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import Tiny

from modelbuild.draft.initialise import InitReport, InitRequest, init
from modelbuild.errors import InvalidInputError, UsageError
from modelbuild.spec.recipe import PathData

PIPELINE = """\
vars:
  - sizes: {small: 3}
stages:
  prepare:
    cmd: python src/prepare.py data/raw.csv data/prepared
    deps: [data/raw.csv, src/prepare.py]
    params: [prepare.split]
    outs: [data/prepared]
  train:
    desc: fit a line
    cmd: python src/train.py --data=data/prepared --lr ${ train.lr } --n ${sizes.small} --out m.json
    deps: [src/train.py, data/prepared]
    outs:
      - m.json:
          cache: true
  evaluate:
    cmd:
      - python src/evaluate.py
      - echo done > report.txt
    deps: [src/evaluate.py, m.json, data/prepared/test.txt]
    outs: [report.txt]
    metrics:
      - eval/metrics.json: {cache: false}
"""

PREPARE = """\
import os, re, sys
split = int(re.search(r"split: (\\d+)", open("params.yaml").read())[1])
lines = open(sys.argv[1]).readlines()
os.makedirs(sys.argv[2])
open(sys.argv[2] + "/train.txt", "w").writelines(lines[split:])
open(sys.argv[2] + "/test.txt", "w").writelines(lines[:split])
"""

TRAIN = """\
import argparse, json
parser = argparse.ArgumentParser()
for name in ("data", "lr", "n", "out"):
    parser.add_argument("--" + name)
args = parser.parse_args()
weight = sum(map(int, open(args.data + "/train.txt"))) * float(args.lr) * int(args.n)
json.dump({"weight": weight}, open(args.out, "w"))
"""

EVALUATE = """\
import json, os
weight = json.load(open("m.json"))["weight"]
os.makedirs("eval", exist_ok=True)
test = sum(map(int, open("data/prepared/test.txt")))
json.dump({"error": weight - test}, open("eval/metrics.json", "w"))
"""


@pytest.fixture
def pipeline(tiny: Tiny) -> Tiny:
    for name in ("recipe.toml", "train.py", "evaluate.py", "numbers.txt"):
        (tiny.root / name).unlink()
    tiny.write("dvc.yaml", PIPELINE)
    tiny.write("params.yaml", "prepare: {split: 2}\ntrain: {lr: 1e-3}\n")
    tiny.write("src/prepare.py", PREPARE)
    tiny.write("src/train.py", TRAIN)
    tiny.write("src/evaluate.py", EVALUATE)
    tiny.write("data/raw.csv", "1\n2\n3\n4\n")
    tiny.write("data/raw.csv.dvc", "outs:\n- md5: 00\n  path: raw.csv\n")
    return tiny


def begin(tiny: Tiny, source: str = "dvc.yaml") -> InitReport:
    return init(InitRequest(folder=tiny.root, source=tiny.root / source))


def test_stages_keep_their_commands_and_paths_become_placeholders(pipeline: Tiny) -> None:
    report = begin(pipeline)
    recipe = report.recipe
    assert recipe.data == {"raw": PathData(path="data/raw.csv")}
    assert recipe.params == {"train.lr": 0.001, "sizes.small": 3}
    assert recipe.code == ("src/**/*.py", "params.yaml")
    prepare, train, evaluate = recipe.stages.values()
    assert prepare.run == ("python", "src/prepare.py", "{data.raw}", "{out}/prepared")
    assert train.run == (
        *("python", "src/train.py", "--data={stages.prepare}/prepared"),
        *("--lr", "{params.train.lr}", "--n", "{params.sizes.small}", "--out", "{out}/m.json"),
    )
    assert evaluate.run == (
        *("sh", "-c"),
        'cp -R --no-preserve=mode . "$TMPDIR/run" && cd "$TMPDIR/run" && '
        "mkdir -p data/prepared eval && "
        'ln -s "{stages.train}/m.json" m.json && '
        'ln -s "{stages.prepare}/prepared/test.txt" data/prepared/test.txt && '
        "( python src/evaluate.py && echo done > report.txt ) && "
        "cp -R --parents report.txt eval/metrics.json {out}",
    )
    assert evaluate.metrics == "eval/metrics.json"
    assert report.notes == ()


def test_the_pipeline_builds_and_computes_what_it_computed(pipeline: Tiny) -> None:
    ran = pipeline.run("init", "--from", "dvc.yaml")
    assert ran.code == 0, ran.err
    stages = pipeline.build()
    assert stages["evaluate"]["metrics"] == {"error": pytest.approx(7 * 0.001 * 3 - 3)}
    assert pipeline.run("verify", "--rebuild").code == 0


def test_data_that_was_not_pulled_is_said(pipeline: Tiny) -> None:
    (pipeline.root / "data" / "raw.csv").unlink()
    assert begin(pipeline).notes == ("data/raw.csv is not here: dvc pull data/raw.csv",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "    desc: fit a line\n",
            "    foreach: [1, 2]\n",
            "stage 'train': 'foreach' can't be taken over\nTo go on: write its stages one by one.",
        ),
        (
            "    desc: fit a line\n",
            "    wdir: src\n",
            "stage 'train': 'wdir' can't be taken over\n"
            "To go on: write paths and command as seen from here.",
        ),
        (
            "{cache: false}",
            "{persist: true}",
            "stage 'evaluate': 'persist' of metrics 'eval/metrics.json' can't be taken over\n"
            "To go on: remove it.",
        ),
        (
            "deps: [data/raw.csv,",
            "deps: ['s3://b/raw.csv',",
            "stage 'prepare': deps 's3://b/raw.csv' lies elsewhere\n"
            "To go on: bring it into the workspace.",
        ),
        (
            "outs: [report.txt]",
            "outs: ['${train}']",
            "stage 'evaluate': '${train}' is no text and no number\nTo go on: write it out.",
        ),
        ("vars:", "datasets:", "'datasets' can't be taken over\n"),
    ],
)
def test_what_a_recipe_cannot_say_is_refused_by_name(
    pipeline: Tiny, old: str, new: str, message: str
) -> None:
    pipeline.replace("dvc.yaml", old, new)
    with pytest.raises(InvalidInputError, match=re.escape(f"dvc.yaml: {message}")):
        begin(pipeline)
    assert not (pipeline.root / "recipe.toml").exists()
    assert "stages:" in (pipeline.root / "dvc.yaml").read_text()


def test_a_value_that_is_no_text_in_a_command_is_refused(pipeline: Tiny) -> None:
    pipeline.replace("dvc.yaml", "${ train.lr }", "${train}")
    with pytest.raises(InvalidInputError) as caught:
        begin(pipeline)
    assert str(caught.value) == (
        "'${train}' in a command can't be taken over\n"
        "  wanted: a number or a text of params.yaml\n"
        "  found:  {'lr': 0.001}\n"
        "To go on: write it out."
    )


def test_a_damaged_file_is_said(pipeline: Tiny) -> None:
    pipeline.write("dvc.yaml", "stages: [")
    with pytest.raises(InvalidInputError, match=r"dvc\.yaml: not YAML"):
        begin(pipeline)


# -- requirements ----------------------------------------------------------------------------------


def test_the_list_of_requirements_that_is_named_is_used(tiny: Tiny) -> None:
    (tiny.root / "recipe.toml").unlink()
    (tiny.root / "evaluate.py").unlink()
    tiny.write("requirements.txt", "flask\n")
    tiny.write("needs/train.txt", "numpy==2.1.0\n")
    report = begin(tiny, "needs/train.txt")
    assert report.recipe.environment.requirements == "needs/train.txt"


def test_a_list_that_cannot_be_used_is_an_error_where_it_is_asked_for(tiny: Tiny) -> None:
    (tiny.root / "recipe.toml").unlink()
    (tiny.root / "evaluate.py").unlink()
    tiny.write("requirements.txt", "-e .\n")
    ran = tiny.run("init", "--from", "requirements.txt")
    assert ran.code == 3
    assert "requirements.txt:1" in ran.err
    assert not (tiny.root / "recipe.toml").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no.yaml", "--from {root}/no.yaml: there is no such file"),
        (
            "train.py",
            "--from {root}/train.py: it is not known how to begin with this\n"
            "  wanted: dvc.yaml, or requirements.txt",
        ),
        (
            "sub/dvc.yaml",
            "--from {root}/sub/dvc.yaml: the recipe of a dvc.yaml lies beside it\n"
            "modelbuild init {root}/sub --from {root}/sub/dvc.yaml",
        ),
    ],
)
def test_other_sources_are_refused(tiny: Tiny, source: str, message: str) -> None:
    (tiny.root / "recipe.toml").unlink()
    tiny.write("sub/dvc.yaml", "stages: {}\n")
    with pytest.raises(UsageError) as caught:
        begin(tiny, source)
    assert str(caught.value) == message.format(root=tiny.root)


def test_a_source_and_a_command_exclude_each_other(tiny: Tiny, tmp_path: Path) -> None:
    ran = tiny.run("init", "--from", "dvc.yaml", "--", "python", "train.py")
    assert ran.code == 2
    assert "--from and a command exclude each other" in ran.err
