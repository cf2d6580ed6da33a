"""`modelbuild init --from`: a dvc.yaml, a list of requirements."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import Tiny

from modelbuild.draft.dvc import read_pipeline
from modelbuild.draft.dvc_templates import REFERENCE, as_text
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
            "stage 'train': 'foreach' goes with 'do' and nothing else\n"
            "To go on: move the rest into 'do'.",
        ),
        (
            "    desc: fit a line\n",
            "    matrix: {lr: 1}\n",
            "stage 'train': 'matrix' has something that is no list\n"
            "To go on: write a list for each name.",
        ),
        (
            "    desc: fit a line\n",
            "    matrix: {lr: '${no.such}'}\n",
            "stage 'train': '${no.such}' is not in params.yaml or vars\nTo go on: write it out.",
        ),
        (
            "    desc: fit a line\n",
            "    wdir: ..\n",
            "stage 'train': wdir '..' leads out of the folder\n"
            "To go on: bring it into the folder, or write the recipe in a folder above: "
            "modelbuild init FOLDER --from ",
        ),
        (
            "  train:\n    desc: fit a line\n",
            "  evaluate@1: {cmd: python x.py}\n  evaluate-1: {cmd: python x.py}\n  train:\n",
            "stage 'evaluate-1': a second stage would be called 'evaluate-1'\n",
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


# -- foreach, matrix, wdir -------------------------------------------------------------------------

TEMPLATES = """\
vars:
  - own: {list: [a, b], flag: true, nested: {x: {lr: 1e-3, name: n1}, y: {lr: 2, name: "n 2"}}}
stages:
  simple:
    foreach: [1, 0.5, true, "a b", x.y]
    do:
      cmd: python src/train.py ${item} --flag ${own.flag} ${lists[0].v} ${lists.1.v}
      outs: ["m-${item}.pt"]
  tables:
    foreach:
      - {a: 1, b: [3, 4]}
      - {a: 2, b: [5, 6]}
    do:
      wdir: sub/${item.a}
      cmd:
        - python ../../src/train.py "${item.a}" ${item.b[1]}
        - echo ${item.b.0}
      deps: [../../src/train.py, in.txt]
      outs:
        - out.txt: {cache: false}
  named:
    foreach: ${own.nested}
    do:
      cmd: python src/train.py ${key} ${item.lr} ${item.name}
      deps: ["data/${key}.csv"]
      metrics: ["metrics/${key}.json"]
  grid:
    matrix:
      os: [linux]
      pyv: ["3.9", 3.1]
      dict: [{arg: 1}]
      lst: [[1, 2], [3, 4]]
      ref: ${own.list}
    cmd: >-
      echo ${item.os} ${item.pyv} ${item.dict.arg} ${item.lst.0} ${item.lst[1]} ${item.ref}
      ${key}
    outs: ["${key}.txt"]
  over:
    foreach: {1: a, b: "${own.list[0]}"}
    do:
      cmd: echo ${key} ${item}
"""
AS_DVC_HAS_THEM = {
    "simple-1": ["python src/train.py 1 --flag true 1 2"],
    "simple-0.5": ["python src/train.py 0.5 --flag true 1 2"],
    "simple-true": ["python src/train.py true --flag true 1 2"],
    "simple-a-b": ["python src/train.py a b --flag true 1 2"],
    "simple-x.y": ["python src/train.py x.y --flag true 1 2"],
    "tables-0": ['python ../../src/train.py "1" 4', "echo 3"],
    "tables-1": ['python ../../src/train.py "2" 6', "echo 5"],
    "named-x": ["python src/train.py x 0.001 n1"],
    "named-y": ["python src/train.py y 2 n 2"],
    **{
        f"grid-linux-{pyv}-dict0-lst{lst}-{ref}": [
            f"echo linux {pyv} 1 {1 + 2 * lst} {2 + 2 * lst} {ref} linux-{pyv}-dict0-lst{lst}-{ref}"
        ]
        for pyv in ("3.9", "3.1")
        for lst in (0, 1)
        for ref in ("a", "b")
    },
    "over-1": ["echo 1 a"],
    "over-b": ["echo b a"],
}
"""What DVC 3.67 resolves this file to; it calls them `simple@1` and so on."""


def test_foreach_and_matrix_are_written_out_as_dvc_does(pipeline: Tiny) -> None:
    pipeline.write("dvc.yaml", TEMPLATES)
    pipeline.write("params.yaml", "lists: [{v: 1}, {v: 2}]\n")
    found = read_pipeline(pipeline.root / "dvc.yaml", pipeline.root)

    def value(match: re.Match[str]) -> str:
        return as_text(found.values[match[1]])

    commands = {
        stage.name: [REFERENCE.sub(value, each) for each in stage.commands]
        for stage in found.stages
    }
    assert commands == AS_DVC_HAS_THEM
    assert list(commands) == list(AS_DVC_HAS_THEM)
    stages = {stage.name: stage for stage in found.stages}
    assert stages["tables-1"].folder == "sub/2"
    assert stages["tables-1"].deps == ("src/train.py", "sub/2/in.txt")
    assert stages["tables-1"].outs == ("sub/2/out.txt",)
    assert stages["named-x"].metrics == ("metrics/x.json",)
    assert stages["simple-a-b"].outs == ("m-a b.pt",)


def test_what_params_yaml_has_for_one_of_foreach_stays_a_parameter(pipeline: Tiny) -> None:
    pipeline.write("params.yaml", "prepare: {split: 2}\nmodels: {us: {lr: 1e-3}, uk: {lr: 2}}\n")
    begun, rest = PIPELINE.split("    desc: fit a line\n")
    _, ended = rest.split("          cache: true\n")
    each = """\
    foreach: ${models}
    do:
      cmd: python src/train.py --data=data/prepared --lr ${item.lr} --n 3 --out ${key}.json
      deps: [src/train.py, data/prepared]
      outs: ["${key}.json"]
"""
    pipeline.write("dvc.yaml", begun + each + ended)
    pipeline.replace("dvc.yaml", "m.json", "us.json")
    recipe = begin(pipeline).recipe
    assert recipe.params == {"models.us.lr": 0.001, "models.uk.lr": 2}
    train = recipe.stages["train-us"]
    assert train.params == ("models.us.lr",)
    assert train.run[-1] == "{out}/us.json"
    assert "{stages.train-us}/us.json" in recipe.stages["evaluate"].run[-1]


def test_a_stage_with_a_working_folder_builds_what_it_built(pipeline: Tiny) -> None:
    """DVC and modelbuild: the same paths, seen from `src` and from a dvc.yaml in a folder."""
    pipeline.write(
        "pipelines/dvc.yaml",
        """\
        stages:
          prepare:
            wdir: ../src
            cmd: mkdir -p made && python prepare.py ../data/raw.csv made/prepared && cat here.txt
            deps: [../data/raw.csv, prepare.py, here.txt]
            params: [prepare.split]
            outs: [made/prepared]
          count:
            wdir: ..
            cmd: python src/count.py src/made/prepared/test.txt counted.json
            deps: [src/count.py, src/made/prepared]
            metrics: [counted.json]
        """,
    )
    (pipeline.root / "params.yaml").rename(pipeline.root / "src" / "params.yaml")
    pipeline.write("src/here.txt", "read where it runs\n")
    pipeline.write(
        "src/count.py",
        "import json, sys\n"
        "json.dump({'sum': sum(map(int, open(sys.argv[1])))}, open(sys.argv[2], 'w'))\n",
    )
    ran = pipeline.run("init", ".", "--from", "pipelines/dvc.yaml")
    assert ran.code == 0, ran.err
    text = (pipeline.root / "recipe.toml").read_text()
    assert "( cd src && mkdir -p made && python prepare.py" in text
    stages = pipeline.build()
    assert stages["count"]["metrics"] == {"sum": 3}
    assert "read where it runs\n" in pipeline.run("log", "workspace:prepare").out


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
            "../dvc.yaml",
            "--from {root}/../dvc.yaml: the recipe of a dvc.yaml lies beside it, or above\n"
            "modelbuild init {root}/.. --from {root}/../dvc.yaml",
        ),
    ],
)
def test_other_sources_are_refused(tiny: Tiny, source: str, message: str) -> None:
    (tiny.root / "recipe.toml").unlink()
    tiny.write("../dvc.yaml", "stages: {}\n")
    with pytest.raises(UsageError) as caught:
        begin(tiny, source)
    assert str(caught.value) == message.format(root=tiny.root)


def test_a_source_and_a_command_exclude_each_other(tiny: Tiny, tmp_path: Path) -> None:
    ran = tiny.run("init", "--from", "dvc.yaml", "--", "python", "train.py")
    assert ran.code == 2
    assert "--from and a command exclude each other" in ran.err
