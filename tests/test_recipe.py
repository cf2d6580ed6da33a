"""A recipe parses into what it says, and every mistake in one has its own message."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import PurePosixPath
from typing import NamedTuple

import pytest

from modelbuild.errors import InvalidInputError, UsageError
from modelbuild.spec.recipe import (
    Determinism,
    Device,
    Environment,
    Hardware,
    Level,
    LocationData,
    PackageData,
    PathData,
    Recipe,
    RecipeData,
    Stage,
    Tolerance,
    UrlData,
)
from modelbuild.spec.recipe_file import parse_recipe
from modelbuild.spec.recipe_settings import override
from modelbuild.spec.references import expand, references, render_param, variable_suffix
from modelbuild.spec.toml_lines import key_lines

PATH = PurePosixPath("recipes/digits/recipe.toml")

BASE = """\
schema = 1
[model]
name = "digits"
[environment]
python = "3.11"
packages = ["torch==2.13.0"]
[code]
include = ["*.py"]
[data.digits]
path = "digits.csv"
[params]
lr = 0.001
[params.model]
depth = 4
[hardware]
threads = 2
[determinism]
seed = 42
[stages.train]
run = ["python", "train.py", "{data.digits}"]
[stages.evaluate]
run = ["python", "evaluate.py", "{stages.train}"]
[verify.metrics]
accuracy = { abs = 0.002 }
"""

EXAMPLE = """\
schema = 1

[model]
name = "digits"
description = "CNN on the UCI hand-written digits"

[environment]
python = "3.11"
packages = ["torch==2.13.0", "scikit-learn>=1.7"]   # or: project, requirements
resolver = "uv"                                     # or "pip-tools"
platform = "x86_64-manylinux_2_28"                  # the default; never taken from the host

[code]
include = ["train.py", "nets/**/*.py"]

[data.digits]                                       # exactly one kind a table: path, url, ...
package = "scikit-learn"
file = "sklearn/datasets/data/digits.csv.gz"

[params]
lr = 0.001
epochs = 3

[hardware]
device = "cpu"          # cpu | cuda
threads = 2             # part of the derivation: the number of threads changes bits
cpu = "x86-64-v3"       # the instruction set the numerics are pinned to
# gpu = "NVIDIA H100*", gpus = 1, gpu-memory = "40 GiB", processes = 1

[determinism]
seed = 42
level = "bitwise"       # bitwise | functional | recorded
# tf32 = "script"       # script | false

[stages.train]
run = ["python", "train.py", "--data", "{data.digits}", "--lr", "{params.lr}", "--out", "{out}"]
metrics = "metrics.json"

[stages.evaluate]
run = ["python", "evaluate.py", "--model", "{stages.train}/model.safetensors", "--out", "{out}"]
metrics = "metrics.json"

[verify.metrics]
accuracy = { abs = 0.002 }
"""


def parse(text: str, path: PurePosixPath = PATH) -> Recipe:
    return parse_recipe(text.encode(), path)


def changed(old: str, new: str) -> Recipe:
    """The base recipe with a part of it replaced."""
    assert BASE.count(old) == 1
    return parse(BASE.replace(old, new))


def test_the_example_of_the_design_parses_into_what_it_says() -> None:
    assert parse(EXAMPLE) == Recipe(
        path=PATH,
        name="digits",
        description="CNN on the UCI hand-written digits",
        environment=Environment(
            python="3.11",
            packages=("torch==2.13.0", "scikit-learn>=1.7"),
            project=None,
            extras=(),
            requirements=None,
            resolver="uv",
            platform="x86_64-manylinux_2_28",
            from_source=(),
            exclude_newer=None,
            base="host",
        ),
        code=("train.py", "nets/**/*.py"),
        data={
            "digits": PackageData(
                package="scikit-learn",
                path="sklearn/datasets/data/digits.csv.gz",
                folder=False,
            )
        },
        params={"lr": 0.001, "epochs": 3},
        hardware=Hardware(
            device=Device.CPU,
            threads=2,
            cpu="x86-64-v3",
            gpu=None,
            gpus=0,
            gpu_memory_bytes=None,
            processes=1,
        ),
        determinism=Determinism(seed=42, level=Level.BITWISE, tf32="script", allow=()),
        stages={
            "train": Stage(
                name="train",
                run=(
                    *("python", "train.py", "--data", "{data.digits}"),
                    *("--lr", "{params.lr}", "--out", "{out}"),
                ),
                metrics="metrics.json",
                code=None,
                data=("digits",),
                params=("lr",),
                stages=(),
                env={},
            ),
            "evaluate": Stage(
                name="evaluate",
                run=(
                    *("python", "evaluate.py", "--model"),
                    *("{stages.train}/model.safetensors", "--out", "{out}"),
                ),
                metrics="metrics.json",
                code=None,
                data=(),
                params=(),
                stages=("train",),
                env={},
            ),
        },
        tolerances={"accuracy": Tolerance(abs=0.002, rel=0.0)},
    )


def test_a_recipe_knows_the_lines_of_its_keys() -> None:
    recipe = parse(EXAMPLE)
    assert recipe.where("environment.packages") == f"{PATH}:9"
    assert recipe.where("data.digits.file") == f"{PATH}:18"
    assert recipe.where("stages.train.env.LR") == f"{PATH}:35"
    assert recipe.where("verify.metrics.accuracy.abs") == f"{PATH}:44"


def test_a_recipe_that_says_little_gets_the_defaults() -> None:
    recipe = parse(
        'schema = 1\nmodel.name = "m"\nenvironment = { python = "3.12.1", packages = [] }\n'
        'stages.train.run = ["true"]\n'
    )
    assert recipe == Recipe(
        path=PATH,
        name="m",
        description="",
        environment=Environment(python="3.12.1", packages=()),
        code=(),
        data={},
        params={},
        hardware=Hardware(),
        determinism=Determinism(),
        stages={"train": Stage(name="train", run=("true",))},
        tolerances={},
    )


@pytest.mark.parametrize(
    ("table", "data"),
    [
        ('path = "../shared/**/*.csv"', PathData(path="../shared/**/*.csv")),
        ('location = "imagenet"', LocationData(location="imagenet")),
        (
            'location = "imagenet"\nfolder = "train"',
            LocationData(location="imagenet", path="train", folder=True),
        ),
        ('url = "https://example.org/d.csv"', UrlData(url="https://example.org/d.csv")),
        (
            f'url = "http://example.org/d.zip?v=1"\nsha256 = "{"AB" * 32}"\nunpack = false',
            UrlData(url="http://example.org/d.zip?v=1", sha256="ab" * 32, unpack=False),
        ),
        (
            'package = "Scikit_Learn"\nfolder = "sklearn/datasets"',
            PackageData(package="scikit-learn", path="sklearn/datasets", folder=True),
        ),
        ('recipe = "base"', RecipeData(recipe="base")),
        ('recipe = "base"\nstage = "train"', RecipeData(recipe="base", stage="train")),
    ],
)
def test_every_kind_of_data_is_read(table: str, data: object) -> None:
    assert changed('path = "digits.csv"', table).data == {"digits": data}


def test_an_environment_can_come_from_a_project() -> None:
    recipe = changed(
        'packages = ["torch==2.13.0"]',
        'project = "../../pyproject.toml"\nextras = ["cpu", "Plot_ting"]\nresolver = "pip-tools"\n'
        'from-source = ["Flash_Attn", "apex"]\nexclude-newer = "2026-01-31T12:00:00Z"\n'
        'platform = "x86_64-manylinux_2_34"',
    )
    assert recipe.environment == Environment(
        python="3.11",
        project="../../pyproject.toml",
        extras=("cpu", "plot-ting"),
        resolver="pip-tools",
        platform="x86_64-manylinux_2_34",
        from_source=("apex", "flash-attn"),
        exclude_newer="2026-01-31T12:00:00Z",
    )


def test_an_environment_can_come_from_a_requirements_file() -> None:
    recipe = changed('packages = ["torch==2.13.0"]', 'requirements = "requirements.in"')
    assert recipe.environment == Environment(python="3.11", requirements="requirements.in")


def test_requirements_stay_as_they_were_written() -> None:
    packages = ("torch[opt] >=2, <3", "numpy", "uvloop>=0.21; sys_platform == 'linux'")
    recipe = changed('packages = ["torch==2.13.0"]', f"packages = {list(packages)}")
    assert recipe.environment.packages == packages


def test_cuda_means_one_gpu_unless_more_are_declared() -> None:
    one = changed("threads = 2", 'device = "cuda"\ngpu = "NVIDIA H100*"\ngpu-memory = "40 GiB"')
    assert one.hardware == Hardware(
        device=Device.CUDA, gpu="NVIDIA H100*", gpus=1, gpu_memory_bytes=40 * 2**30
    )
    assert changed("threads = 2", 'device = "cuda"\ngpus = 4').hardware.gpus == 4


def test_determinism_is_read() -> None:
    recipe = changed(
        "seed = 42",
        'seed = 4294967295\nlevel = "functional"\ntf32 = false\nallow = ["scatter_add"]\n'
        "trace-every = 10",
    )
    assert recipe.determinism == Determinism(
        seed=2**32 - 1,
        level=Level.FUNCTIONAL,
        tf32="false",
        allow=("scatter_add",),
        trace_every=10,
    )


def test_operations_are_allowed_below_bitwise_only() -> None:
    for level in (Level.FUNCTIONAL, Level.RECORDED):
        lower = changed("seed = 42", f'level = "{level}"\nallow = ["put_"]')
        assert lower.determinism == Determinism(level=level, allow=("put_",))
    none = changed("seed = 42", 'level = "bitwise"\nallow = []')
    assert none.determinism == Determinism(level=Level.BITWISE)


def test_nested_parameters_get_dotted_names() -> None:
    recipe = changed("depth = 4", 'depth = 4\nsizes = [[8, 16], [0.5]]\nhead.kind = "mlp"')
    assert recipe.params == {
        "lr": 0.001,
        "model.depth": 4,
        "model.sizes": ((8, 16), (0.5,)),
        "model.head.kind": "mlp",
    }


def test_a_stage_sees_what_it_names_and_what_it_lists() -> None:
    recipe = changed(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "--lr={params.lr}", "{seed}", "{threads}", "{{}}"]\n'
        'env = { DEPTH = "{params.model.depth}", LR = "{params.lr}" }\n'
        'data = ["digits", "digits"]\ncode = ["nets/*.py"]\nmetrics = "logs/metrics.json"',
    )
    assert recipe.stages["train"] == Stage(
        name="train",
        run=("python", "train.py", "--lr={params.lr}", "{seed}", "{threads}", "{{}}"),
        metrics="logs/metrics.json",
        code=("nets/*.py",),
        data=("digits",),
        params=("lr", "model.depth"),
        env={"DEPTH": "{params.model.depth}", "LR": "{params.lr}"},
    )


def test_stages_come_after_those_they_read_and_else_as_in_the_file() -> None:
    reads = {"a": "{stages.d}", "b": "{stages.e}", "c": "", "d": "", "e": ""}
    stages = "".join(f'[stages.{name}]\nrun = ["x", "{read}"]\n' for name, read in reads.items())
    recipe = parse(BASE[: BASE.index("[stages.train]")] + stages)
    assert list(recipe.stages) == ["c", "d", "a", "e", "b"]
    assert recipe.last_stage == "b"


def test_a_path_may_go_up_as_far_as_the_workspace() -> None:
    up = BASE.replace("digits.csv", "../../digits.csv")
    assert parse(up).data == {"digits": PathData(path="../../digits.csv")}
    with pytest.raises(InvalidInputError, match="leaves the workspace"):
        parse(up, PurePosixPath("digits/recipe.toml"))
    with pytest.raises(InvalidInputError, match="leaves the workspace"):
        parse(BASE.replace("digits.csv", "a/../../digits.csv"), PurePosixPath("recipe.toml"))


class Mistake(NamedTuple):
    """A change of the base recipe, and the message after the file's name."""

    old: str
    new: str
    message: str


MISTAKES = {
    "an unknown key at the top": Mistake(
        "schema = 1",
        'schema = 1\nmodle = "x"',
        "2: unknown key 'modle'\n"
        "  wanted: schema, model, environment, code, data, params, hardware, "
        "determinism, stages, verify\n"
        "  found:  modle\n"
        "Did you mean 'model'?",
    ),
    "an unknown table": Mistake(
        "[environment]",
        "[enviroment]",
        "4: unknown table [enviroment]\n"
        "  wanted: schema, model, environment, code, data, params, hardware, "
        "determinism, stages, verify\n"
        "  found:  enviroment\n"
        "Did you mean 'environment'?",
    ),
    "an unknown key in a table": Mistake(
        "packages =",
        "packges =",
        "6: unknown key 'packges' in [environment]\n"
        "  wanted: python, packages, project, requirements, extras, resolver, platform, "
        "from-source, exclude-newer, base\n"
        "  found:  packges\n"
        "Did you mean 'packages'?",
    ),
    "an unknown key in data": Mistake(
        "path =",
        "pth =",
        "10: unknown key 'pth' in [data.digits]\n"
        "  wanted: path, location, url, package, recipe, file, folder, sha256, unpack, "
        "stage\n"
        "  found:  pth\n"
        "Did you mean 'path'?",
    ),
    "an unknown key in a stage": Mistake(
        "[stages.train]",
        '[stages.train]\nmetric = "m.json"',
        "20: unknown key 'metric' in [stages.train]\n"
        "  wanted: run, metrics, curves, code, data, params, stages, env, processes\n"
        "  found:  metric\n"
        "Did you mean 'metrics'?",
    ),
    "an unknown key in a tolerance": Mistake(
        "abs =",
        "absolute =",
        "24: unknown key 'absolute' in [verify.metrics.accuracy]\n"
        "  wanted: abs, rel\n"
        "  found:  absolute",
    ),
    "an unknown table in verify": Mistake(
        "[verify.metrics]",
        "[verify.metric]",
        "23: unknown table [verify.metric]\n"
        "  wanted: metrics, predictions\n"
        "  found:  metric\n"
        "Did you mean 'metrics'?",
    ),
    "an unknown table in data": Mistake(
        "[data.digits]",
        '[data.digits]\npath = "a"\n[data.digits.train]',
        "11: unknown table [data.digits.train]\n"
        "  wanted: path, location, url, package, recipe, file, folder, sha256, unpack, "
        "stage\n"
        "  found:  train",
    ),
    "an unknown key that a terminal can't show": Mistake(
        "threads = 2",
        '"thr\\u001beads" = 2',
        "15: unknown key 'thr\\x1beads' in [hardware]\n"
        "  wanted: device, threads, cpu, mkl, gpu, gpus, gpu-memory, processes\n"
        "  found:  thr\\x1beads\n"
        "Did you mean 'threads'?",
    ),
    "no schema": Mistake(
        "schema = 1\n",
        "",
        "1: the recipe has no 'schema'\n"
        "  wanted: schema = 1\n"
        "  found:  model, environment, code, data, params, hardware, determinism, "
        "stages, verify",
    ),
    "newer schema": Mistake(
        "schema = 1",
        "schema = 2",
        "1: the recipe has schema 2\n"
        "  wanted: schema = 1\n"
        "  found:  schema = 2\n"
        "It was written for a newer version: update modelbuild.",
    ),
    "schema 0": Mistake(
        "schema = 1",
        "schema = 0",
        "1: the recipe has schema 0\n  wanted: schema = 1\n  found:  schema = 0",
    ),
    "no model table": Mistake(
        '[model]\nname = "digits"\n',
        "",
        "1: the recipe has no 'model'\n"
        '  wanted: [model] with name = "..."\n'
        "  found:  schema, environment, code, data, params, hardware, determinism, "
        "stages, verify",
    ),
    "no name": Mistake(
        'name = "digits"\n',
        "",
        "2: [model] has no 'name'\n  wanted: name = \"digits\"\n  found:  nothing",
    ),
    "no python": Mistake(
        'python = "3.11"\n',
        "",
        "4: [environment] has no 'python'\n  wanted: python = \"3.11\"\n  found:  packages",
    ),
    "no run": Mistake(
        'run = ["python", "train.py", "{data.digits}"]\n',
        "",
        "19: [stages.train] has no 'run'\n"
        '  wanted: run = ["python", "train.py"]\n'
        "  found:  nothing",
    ),
    "no stages": Mistake(
        "[stages.train]\n"
        'run = ["python", "train.py", "{data.digits}"]\n'
        "[stages.evaluate]\n"
        'run = ["python", "evaluate.py", "{stages.train}"]\n',
        "",
        "1: the recipe has no stage\n"
        '  wanted: [stages.train] with run = ["python", "train.py"]\n'
        "  found:  nothing",
    ),
    "a string where an integer belongs": Mistake(
        "threads = 2",
        'threads = "two"',
        "16: wrong type for 'threads' in [hardware]\n"
        "  wanted: an integer\n"
        "  found:  a string: 'two'",
    ),
    "a boolean where an integer belongs": Mistake(
        "seed = 42",
        "seed = true",
        "18: wrong type for 'seed' in [determinism]\n"
        "  wanted: an integer\n"
        "  found:  a boolean: true",
    ),
    "an integer where a string belongs": Mistake(
        'name = "digits"',
        "name = 7",
        "3: wrong type for 'name' in [model]\n"
        "  wanted: a string\n"
        "  found:  an integer: 7\n"
        'Quote it: name = "7"',
    ),
    "a float as python version": Mistake(
        'python = "3.11"',
        "python = 3.11",
        "5: wrong type for 'python' in [environment]\n"
        '  wanted: a version in quotes: "3.11", or an exact "3.11.7"\n'
        "  found:  a float: 3.11",
    ),
    "a string where a list belongs": Mistake(
        'packages = ["torch==2.13.0"]',
        'packages = "torch==2.13.0"',
        "6: wrong type for 'packages' in [environment]\n"
        "  wanted: a list of strings\n"
        "  found:  a string: 'torch==2.13.0'\n"
        'A list of one: packages = ["torch==2.13.0"]',
    ),
    "a number in a list of strings": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", 3]',
        "20: wrong type for 'run' in [stages.train]\n"
        "  wanted: a list of strings\n"
        "  found:  an integer: 3\n"
        'Quote it: "3"',
    ),
    "a command line as a string": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        "run = \"python train.py --name 'a b'\"",
        "20: wrong type for 'run' in [stages.train]\n"
        "  wanted: a list of strings\n"
        "  found:  a string: \"python train.py --name 'a b'\"\n"
        'As a list: run = ["python", "train.py", "--name", "a b"]',
    ),
    "a string where a table belongs": Mistake(
        '[model]\nname = "digits"',
        'model = "digits"',
        "2: wrong type for 'model'\n  wanted: a table\n  found:  a string: 'digits'",
    ),
    "a number where a tolerance belongs": Mistake(
        "{ abs = 0.002 }",
        "0.002",
        "24: wrong type for 'accuracy' in [verify.metrics]\n"
        "  wanted: a table\n"
        "  found:  a float: 0.002\n"
        "As in: accuracy = { abs = 0.002 }",
    ),
    "a string where data belongs": Mistake(
        '[data.digits]\npath = "digits.csv"',
        '[data]\ndigits = "digits.csv"',
        "10: wrong type for 'digits' in [data]\n"
        "  wanted: a table\n"
        "  found:  a string: 'digits.csv'\n"
        'Data is a table: [data.NAME], then path = "..."',
    ),
    "a string where a boolean belongs": Mistake(
        'path = "digits.csv"',
        'url = "https://example.org/d.zip"\nunpack = "yes"',
        "11: wrong type for 'unpack' in [data.digits]\n"
        "  wanted: true or false\n"
        "  found:  a string: 'yes'",
    ),
    "a date where a string belongs": Mistake(
        'packages = ["torch==2.13.0"]',
        'packages = ["torch==2.13.0"]\nexclude-newer = 2026-01-31',
        "7: wrong type for 'exclude-newer' in [environment]\n"
        '  wanted: a date in quotes: "2026-01-31" or "2026-01-31T12:00:00Z"\n'
        "  found:  a date or time: 2026-01-31",
    ),
    "no kind of data": Mistake(
        'path = "digits.csv"',
        "",
        "9: [data.digits] has no kind of data\n"
        "  wanted: exactly one of path, location, url, package, recipe\n"
        "  found:  nothing",
    ),
    "two kinds of data": Mistake(
        'path = "digits.csv"',
        'path = "digits.csv"\nlocation = "digits"',
        "11: [data.digits] has 2 kinds of data\n"
        "  wanted: exactly one of path, location, url, package, recipe\n"
        "  found:  path, location",
    ),
    "a kind of data that is not supported": Mistake(
        'path = "digits.csv"',
        'git = "https://example.org/data"',
        "10: data of kind 'git' is not supported\n"
        "  wanted: one of path, location, url, package, recipe\n"
        "  found:  git",
    ),
    "a key that belongs to another kind of data": Mistake(
        'path = "digits.csv"',
        'path = "digits.csv"\nsha256 = "00"',
        "11: 'sha256' in [data.digits] does not go with 'path'\n"
        "  wanted: path\n"
        "  found:  path, sha256",
    ),
    "package without file or folder": Mistake(
        'path = "digits.csv"',
        'package = "scikit-learn"',
        "10: [data.digits] does not say what to take from the package\n"
        "  wanted: 'file' or 'folder', a path in the wheel\n"
        "  found:  package",
    ),
    "package with file and folder": Mistake(
        'path = "digits.csv"',
        'package = "scikit-learn"\nfile = "a"\nfolder = "b"',
        "12: [data.digits] has both 'file' and 'folder'\n"
        "  wanted: one of file, folder\n"
        "  found:  package, file, folder",
    ),
    "location with file and folder": Mistake(
        'path = "digits.csv"',
        'location = "imagenet"\nfile = "a"\nfolder = "b"',
        "12: [data.digits] has both 'file' and 'folder'\n"
        "  wanted: one of file, folder\n"
        "  found:  location, file, folder",
    ),
    "a package's name that is none": Mistake(
        'path = "digits.csv"',
        'package = "scikit learn"\nfile = "a"',
        "10: 'package' in [data.digits] is not the name of a package\n"
        "  wanted: a name as in 'scikit-learn'\n"
        "  found:  scikit learn",
    ),
    "a url of another scheme": Mistake(
        'path = "digits.csv"',
        'url = "ftp://example.org/digits.csv"',
        "10: 'url' in [data.digits] can't be fetched\n"
        "  wanted: an http or https URL without user name, password, fragment or spaces\n"
        "  found:  a string: 'ftp://example.org/digits.csv'",
    ),
    "a url with a password": Mistake(
        'path = "digits.csv"',
        'url = "https://me:secret@example.org/digits.csv"',
        "10: 'url' in [data.digits] can't be fetched\n"
        "  wanted: an http or https URL without user name, password, fragment or spaces\n"
        "  found:  a string: 'https://...@example.org/digits.csv'",
    ),
    "not a sha256": Mistake(
        'path = "digits.csv"',
        'url = "https://example.org/digits.csv"\nsha256 = "sha256:12"',
        "11: 'sha256' in [data.digits] is not a SHA-256\n"
        "  wanted: 64 hexadecimal digits\n"
        "  found:  a string: 'sha256:12'",
    ),
    "data of the recipe itself": Mistake(
        'path = "digits.csv"',
        'recipe = "digits"',
        "10: data 'digits' is of the recipe itself\n"
        "  wanted: another recipe of the workspace\n"
        "  found:  digits\n"
        "A stage reads another stage of its own recipe with {stages.NAME}.",
    ),
    "undefined name in braces": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "{ouput}"]',
        "20: 'run' in [stages.train] names 'ouput', which is not defined\n"
        "  wanted: one of out, seed, threads, data.digits, params.lr, "
        "params.model.depth, stages.train, stages.evaluate\n"
        "  found:  ouput\n"
        "Did you mean 'out'?",
    ),
    "undefined name in braces that is near": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "{outt}"]',
        "20: 'run' in [stages.train] names 'outt', which is not defined\n"
        "  wanted: one of out, seed, threads, data.digits, params.lr, "
        "params.model.depth, stages.train, stages.evaluate\n"
        "  found:  outt\n"
        "Did you mean 'out'?",
    ),
    "undefined data": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "{data.digit}"]',
        "20: 'run' in [stages.train] names 'data.digit', which is not defined\n"
        "  wanted: one of data.digits\n"
        "  found:  data.digit\n"
        "Did you mean 'data.digits'?",
    ),
    "undefined param": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "{params.rl}"]',
        "20: 'run' in [stages.train] names 'params.rl', which is not defined\n"
        "  wanted: one of params.lr, params.model.depth\n"
        "  found:  params.rl\n"
        "Did you mean 'params.lr'?",
    ),
    "a table of parameters in braces": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "{params.model}"]',
        "20: 'run' in [stages.train] names 'params.model', which is not defined\n"
        "  wanted: one of params.lr, params.model.depth\n"
        "  found:  params.model\n"
        "Did you mean 'params.model.depth'?",
    ),
    "undefined stage": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "{stages.evalute}"]',
        "20: 'run' in [stages.train] names 'stages.evalute', which is not defined\n"
        "  wanted: one of stages.train, stages.evaluate\n"
        "  found:  stages.evalute\n"
        "Did you mean 'stages.evaluate'?",
    ),
    "a name in braces without its group": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "{digits}"]',
        "20: 'run' in [stages.train] names 'digits', which is not defined\n"
        "  wanted: one of out, seed, threads, data.digits, params.lr, "
        "params.model.depth, stages.train, stages.evaluate\n"
        "  found:  digits\n"
        "Did you mean 'data.digits'?",
    ),
    "data in a recipe that has none": Mistake(
        '[data.digits]\npath = "digits.csv"\n',
        "",
        "18: 'run' in [stages.train] names 'data.digits', which is not defined\n"
        "  wanted: a name that is defined; the recipe has no [data]\n"
        "  found:  data.digits",
    ),
    "undefined name in env": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "{data.digits}"]\nenv = { LR = "{params.learning}" }',
        "21: 'LR' in [stages.train.env] names 'params.learning', which is not defined\n"
        "  wanted: one of params.lr, params.model.depth\n"
        "  found:  params.learning\n"
        "Did you mean 'params.lr'?",
    ),
    "undefined name in a list": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "{data.digits}"]\nparams = ["lrr"]',
        "21: 'params' in [stages.train] names 'params.lrr', which is not defined\n"
        "  wanted: one of params.lr, params.model.depth\n"
        "  found:  params.lrr\n"
        "Did you mean 'params.lr'?",
    ),
    "a single brace": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "a{b"]',
        "20: 'run' in [stages.train] has a single { at character 2\n"
        "  wanted: {NAME}, or {{ and }} for the characters themselves\n"
        "  found:  a{b",
    ),
    "a single closing brace": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "a}"]',
        "20: 'run' in [stages.train] has a single } at character 2\n"
        "  wanted: {NAME}, or {{ and }} for the characters themselves\n"
        "  found:  a}",
    ),
    "a stage that reads itself": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "{stages.train}"]',
        "20: stage 'train' reads its own output\n"
        "  wanted: {out}, or another stage\n"
        "  found:  stages.train",
    ),
    "a cycle of stages": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "{stages.evaluate}"]',
        "19: the stages form a cycle\n"
        "  wanted: an order in which each stage comes after those it reads\n"
        "  found:  train reads evaluate reads train",
    ),
    "a longer cycle": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "{data.digits}"]\n'
        'stages = ["b"]\n'
        "[stages.a]\n"
        'run = ["x", "{stages.evaluate}"]\n'
        "[stages.b]\n"
        'run = ["x", "{stages.a}"]',
        "19: the stages form a cycle\n"
        "  wanted: an order in which each stage comes after those it reads\n"
        "  found:  train reads b reads a reads evaluate reads train",
    ),
    "unknown device": Mistake(
        "threads = 2",
        'device = "gpu"',
        "16: unknown value of 'device' in [hardware]\n"
        "  wanted: cpu, cuda\n"
        "  found:  gpu\n"
        "Did you mean 'cuda'?",
    ),
    "unknown cpu": Mistake(
        "threads = 2",
        'cpu = "x86-64-v9"',
        "16: unknown value of 'cpu' in [hardware]\n"
        "  wanted: x86-64-v2, x86-64-v3, x86-64-v4, native\n"
        "  found:  x86-64-v9\n"
        "Did you mean 'x86-64-v4'?",
    ),
    "unknown level": Mistake(
        "seed = 42",
        'level = "bit-wise"',
        "18: unknown value of 'level' in [determinism]\n"
        "  wanted: bitwise, functional, recorded\n"
        "  found:  bit-wise\n"
        "Did you mean 'bitwise'?",
    ),
    "unknown resolver": Mistake(
        'packages = ["torch==2.13.0"]',
        'packages = ["torch==2.13.0"]\nresolver = "pip"',
        "7: unknown value of 'resolver' in [environment]\n"
        "  wanted: uv, pip-tools\n"
        "  found:  pip\n"
        "Did you mean 'pip-tools'?",
    ),
    "tf32 that is true": Mistake(
        "seed = 42",
        "tf32 = true",
        "18: unknown value of 'tf32' in [determinism]\n"
        '  wanted: "script" or false\n'
        "  found:  a boolean: true",
    ),
    "an unknown base": Mistake(
        'packages = ["torch==2.13.0"]',
        'packages = ["torch==2.13.0"]\nbase = "image"',
        "7: unknown value of 'base' in [environment]\n  wanted: host, interpreter\n  found:  image",
    ),
    "a base that pip-tools can't resolve on": Mistake(
        'packages = ["torch==2.13.0"]',
        'packages = ["torch==2.13.0"]\nbase = "interpreter"\nresolver = "pip-tools"',
        "8: 'resolver' in [environment] does not go with base = \"interpreter\"\n"
        "  wanted: uv, which can resolve around packages that are there already\n"
        "  found:  pip-tools",
    ),
    "an unknown platform": Mistake(
        'packages = ["torch==2.13.0"]',
        'packages = ["torch==2.13.0"]\nplatform = "linux"',
        "7: 'platform' in [environment] is not a platform that can be built for\n"
        "  wanted: x86_64-manylinux_2_NN, the NN of the oldest glibc\n"
        "  found:  linux\n"
        "Did you mean 'x86_64-manylinux_2_28'?",
    ),
    "seed below 0": Mistake(
        "seed = 42",
        "seed = -1",
        "18: 'seed' in [determinism] is out of range\n"
        "  wanted: an integer from 0 to 4294967295\n"
        "  found:  an integer: -1",
    ),
    "seed of 33 bits": Mistake(
        "seed = 42",
        "seed = 4294967296",
        "18: 'seed' in [determinism] is out of range\n"
        "  wanted: an integer from 0 to 4294967295\n"
        "  found:  an integer: 4294967296",
    ),
    "no threads": Mistake(
        "threads = 2",
        "threads = 0",
        "16: 'threads' in [hardware] is out of range\n"
        "  wanted: an integer from 1 to 65535\n"
        "  found:  an integer: 0",
    ),
    "gpus without cuda": Mistake(
        "threads = 2",
        "gpus = 1",
        "16: 'gpus' in [hardware] needs device = \"cuda\"\n"
        '  wanted: device = "cuda"\n'
        '  found:  device = "cpu"',
    ),
    "gpu memory without cuda": Mistake(
        "threads = 2",
        'gpu-memory = "40 GiB"',
        "16: 'gpu-memory' in [hardware] needs device = \"cuda\"\n"
        '  wanted: device = "cuda"\n'
        '  found:  device = "cpu"',
    ),
    "cuda without gpus": Mistake(
        "threads = 2",
        'device = "cuda"\ngpus = 0',
        "17: 'gpus' in [hardware] is out of range\n"
        "  wanted: an integer from 1 to 65535\n"
        "  found:  an integer: 0",
    ),
    "a gpu-memory that is no size": Mistake(
        "threads = 2",
        'device = "cuda"\ngpu-memory = "40 gigs"',
        "17: 'gpu-memory' in [hardware] is not a size\n"
        '  wanted: a number and one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB, as in "40 '
        'GiB"\n'
        "  found:  a string: '40 gigs'",
    ),
    "negative tolerance": Mistake(
        "abs = 0.002",
        "abs = -0.1",
        "24: 'abs' in [verify.metrics.accuracy] is out of range\n"
        "  wanted: a finite number, 0 or more\n"
        "  found:  a float: -0.1",
    ),
    "tolerance nan": Mistake(
        "abs = 0.002",
        "rel = nan",
        "24: 'rel' in [verify.metrics.accuracy] is out of range\n"
        "  wanted: a finite number, 0 or more\n"
        "  found:  a float: nan",
    ),
    "no tolerance": Mistake(
        "abs = 0.002",
        "",
        "24: [verify.metrics.accuracy] has no tolerance\n"
        "  wanted: 'abs', 'rel' or both\n"
        "  found:  an empty table",
    ),
    "predictions of no stage": Mistake(
        "[verify.metrics]\n",
        '[verify.predictions.trian]\nfile = "golden.npy"\nabs = 1\n[verify.metrics]\n',
        "23: [verify.predictions.trian] names no stage\n"
        "  wanted: one of train, evaluate\n"
        "  found:  trian\n"
        "Did you mean 'train'?",
    ),
    "predictions without a file": Mistake(
        "[verify.metrics]\n",
        "[verify.predictions.train]\nabs = 1\n[verify.metrics]\n",
        "23: [verify.predictions.train] has no 'file'\n"
        '  wanted: file = "golden.npy"\n'
        "  found:  abs",
    ),
    "predictions without a tolerance": Mistake(
        "[verify.metrics]\n",
        '[verify.predictions.train]\nfile = "golden.npy"\n[verify.metrics]\n',
        "23: [verify.predictions.train] has no tolerance\n"
        "  wanted: 'abs', 'rel' or both\n"
        "  found:  file",
    ),
    "predictions outside of the output": Mistake(
        "[verify.metrics]\n",
        '[verify.predictions.train]\nfile = "../golden.npy"\nabs = 1\n[verify.metrics]\n',
        "24: 'file' in [verify.predictions.train] leaves the output\n"
        "  wanted: a path relative to the output that stays in the output\n"
        "  found:  ../golden.npy",
    ),
    "param nan": Mistake(
        "lr = 0.001",
        "lr = nan",
        "12: 'lr' in [params] is out of range\n"
        "  wanted: a finite number, or an integer of 64 bits\n"
        "  found:  a float: nan",
    ),
    "param inf": Mistake(
        "lr = 0.001",
        "lr = [1.0, inf]",
        "12: 'lr' in [params] is out of range\n"
        "  wanted: a finite number, or an integer of 64 bits\n"
        "  found:  a float: inf",
    ),
    "param of more than 64 bits": Mistake(
        "lr = 0.001",
        "lr = 0x1_0000_0000_0000_0000",
        "12: 'lr' in [params] is out of range\n"
        "  wanted: a finite number, or an integer of 64 bits\n"
        "  found:  an integer of more than 64 bits",
    ),
    "param is a date": Mistake(
        "lr = 0.001",
        "lr = 2026-01-31",
        "12: wrong type for 'lr' in [params]\n"
        "  wanted: strings, numbers, booleans and lists of these\n"
        "  found:  a date or time: 2026-01-31\n"
        'Quote it: lr = "2026-01-31"',
    ),
    "param is a table in a list": Mistake(
        "lr = 0.001",
        "lr = [{ a = 1 }]",
        "12: wrong type for 'lr' in [params]\n"
        "  wanted: strings, numbers, booleans and lists of these\n"
        "  found:  a table with a",
    ),
    "a NUL in an argument": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "a\\u0000b"]',
        "20: 'run' in [stages.train] contains a NUL character\n"
        "  wanted: a string without it\n"
        "  found:  a string: 'a\\x00b'",
    ),
    "empty run": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        "run = []",
        "20: 'run' in [stages.train] has no command\n"
        '  wanted: a list of strings as in ["python", "train.py"]\n'
        "  found:  an empty list",
    ),
    "empty command": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = [""]',
        "20: 'run' in [stages.train] has no command\n"
        '  wanted: a list of strings as in ["python", "train.py"]\n'
        "  found:  an empty string as the command",
    ),
    "no packages": Mistake(
        'packages = ["torch==2.13.0"]\n',
        "",
        "4: [environment] has no list of packages\n"
        "  wanted: exactly one of packages, project, requirements\n"
        "  found:  python",
    ),
    "packages and project": Mistake(
        'packages = ["torch==2.13.0"]',
        'packages = ["torch==2.13.0"]\nproject = "pyproject.toml"',
        "7: [environment] has several lists of packages\n"
        "  wanted: exactly one of packages, project, requirements\n"
        "  found:  packages, project",
    ),
    "extras without project": Mistake(
        'packages = ["torch==2.13.0"]',
        'packages = ["torch==2.13.0"]\nextras = ["cpu"]',
        "7: 'extras' in [environment] does not go with 'packages'\n"
        "  wanted: extras of a project\n"
        "  found:  packages\n"
        'With packages, extras stand in brackets: "name[extra]"',
    ),
    "a requirement with a single equals sign": Mistake(
        'packages = ["torch==2.13.0"]',
        'packages = ["torch=2.13.0"]',
        "6: 'packages' in [environment] has an invalid requirement\n"
        '  wanted: a name and versions as in "torch==2.13.0" or "scikit-learn>=1.7,<2"\n'
        "  found:  torch=2.13.0\n"
        "Did you mean 'torch==2.13.0'?",
    ),
    "an invalid requirement": Mistake(
        'packages = ["torch==2.13.0"]',
        'packages = ["torch 2.13"]',
        "6: 'packages' in [environment] has an invalid requirement\n"
        '  wanted: a name and versions as in "torch==2.13.0" or "scikit-learn>=1.7,<2"\n'
        "  found:  torch 2.13",
    ),
    "an option among packages": Mistake(
        'packages = ["torch==2.13.0"]',
        'packages = ["--pre"]',
        "6: 'packages' in [environment] has an invalid requirement\n"
        '  wanted: a name and versions as in "torch==2.13.0" or "scikit-learn>=1.7,<2"\n'
        "  found:  --pre",
    ),
    "an allowed operation at the default level": Mistake(
        "seed = 42",
        'allow = ["put_"]',
        "18: 'allow' in [determinism] does not go with level 'bitwise'\n"
        '  wanted: level = "functional" or level = "recorded"\n'
        '  found:  level = "bitwise", the default\n'
        "An operation that is allowed here may give other bits in every run. Lower the level, or "
        "do without the operation.",
    ),
    "an allowed operation at level bitwise": Mistake(
        "seed = 42",
        'level = "bitwise"\nallow = ["put_"]',
        "19: 'allow' in [determinism] does not go with level 'bitwise'\n"
        '  wanted: level = "functional" or level = "recorded"\n'
        '  found:  level = "bitwise"\n'
        "An operation that is allowed here may give other bits in every run. Lower the level, or "
        "do without the operation.",
    ),
    "requirement by URL": Mistake(
        'packages = ["torch==2.13.0"]',
        'packages = ["torch @ https://example.org/torch.whl"]',
        "6: 'packages' in [environment] has a requirement by URL, which is not supported\n"
        "  wanted: a name and versions; any index or folder that pip or uv knows may "
        "deliver it\n"
        "  found:  torch @ https://example.org/torch.whl",
    ),
    "requirement by URL with a password": Mistake(
        'packages = ["torch==2.13.0"]',
        'packages = ["torch @ https://user:s3cret@example.org/torch.whl"]',
        "6: 'packages' in [environment] has a requirement by URL, which is not supported\n"
        "  wanted: a name and versions; any index or folder that pip or uv knows may "
        "deliver it\n"
        "  found:  torch @ https://example.org/torch.whl",
    ),
    "a URL with a password for a requirement": Mistake(
        'packages = ["torch==2.13.0"]',
        'packages = ["git+https://user:s3cret@example.org/torch"]',
        "6: 'packages' in [environment] has an invalid requirement\n"
        '  wanted: a name and versions as in "torch==2.13.0" or "scikit-learn>=1.7,<2"\n'
        "  found:  git+https://example.org/torch",
    ),
    "a range of Python versions": Mistake(
        '"3.11"',
        '">=3.11"',
        "5: 'python' in [environment] is not a version of Python\n"
        '  wanted: a version in quotes: "3.11", or an exact "3.11.7"\n'
        "  found:  a string: '>=3.11'",
    ),
    "a duration for exclude-newer": Mistake(
        'packages = ["torch==2.13.0"]',
        'packages = ["torch==2.13.0"]\nexclude-newer = "30 days"',
        "7: 'exclude-newer' in [environment] is not a date or a time with its offset\n"
        '  wanted: a date in quotes: "2026-01-31" or "2026-01-31T12:00:00Z"\n'
        "  found:  a string: '30 days'",
    ),
    "a day that does not exist": Mistake(
        'packages = ["torch==2.13.0"]',
        'packages = ["torch==2.13.0"]\nexclude-newer = "2026-02-30"',
        "7: 'exclude-newer' in [environment] is not a date or a time with its offset\n"
        '  wanted: a date in quotes: "2026-01-31" or "2026-01-31T12:00:00Z"\n'
        "  found:  a string: '2026-02-30'",
    ),
    "recipe name": Mistake(
        'name = "digits"',
        'name = "../digits"',
        "3: the recipe has a name that can't be used\n"
        "  wanted: letters, digits, '_', '.' and '-', the first a letter or digit, at "
        "most 80\n"
        "  found:  a string: '../digits'",
    ),
    "stage name": Mistake(
        "[stages.train]",
        '[stages."train 1"]',
        "19: a stage has a name that can't be used\n"
        "  wanted: letters, digits, '_', '.' and '-', the first a letter or digit, at "
        "most 80\n"
        "  found:  a string: 'train 1'",
    ),
    "data name": Mistake(
        "[data.digits]",
        "[data._digits]",
        "9: data has a name that can't be used\n"
        "  wanted: letters, digits, '_', '.' and '-', the first a letter or digit, at "
        "most 80\n"
        "  found:  a string: '_digits'",
    ),
    "param name": Mistake(
        "lr = 0.001",
        '"learning rate" = 0.001',
        "12: a parameter has a name that can't be used\n"
        "  wanted: letters, digits, '_' and '-'\n"
        "  found:  a string: 'learning rate'",
    ),
    "names that differ too little": Mistake(
        "[data.digits]",
        '[data.a_b]\npath = "x"\n[data.a-b]\npath = "y"\n[data.digits]',
        "11: 'a_b' and 'a-b' in [data] differ too little\n"
        "  wanted: names that differ in more than case, '.', '-' and '_'\n"
        "  found:  both are in the environment variable MODELBUILD_DATA_A_B",
    ),
    "params that differ too little": Mistake(
        "lr = 0.001",
        "lr = 0.001\nmodel-depth = 2",
        "15: 'model-depth' and 'model.depth' in [params] differ too little\n"
        "  wanted: names that differ in more than case, '.', '-' and '_'\n"
        "  found:  both are in the environment variable MODELBUILD_PARAM_MODEL_DEPTH",
    ),
    "environment variable": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "{data.digits}"]\nenv = { "A-B" = "x" }',
        "21: an environment variable has a name that can't be used\n"
        "  wanted: letters, digits and '_', not MODELBUILD_..., the first not a digit\n"
        "  found:  a string: 'A-B'",
    ),
    "environment variable of ours": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "{data.digits}"]\nenv = { MODELBUILD_SEED = "1" }',
        "21: an environment variable has a name that can't be used\n"
        "  wanted: letters, digits and '_', not MODELBUILD_..., the first not a digit\n"
        "  found:  a string: 'MODELBUILD_SEED'",
    ),
    "absolute path": Mistake(
        'path = "digits.csv"',
        'path = "/data/digits.csv"',
        "10: 'path' in [data.digits] is absolute\n"
        "  wanted: a path relative to the recipe's folder that stays in the workspace\n"
        "  found:  /data/digits.csv\n"
        "Data that lives elsewhere is named, and each user maps the name: location = "
        '"NAME"',
    ),
    "home path": Mistake(
        'path = "digits.csv"',
        'path = "~/digits.csv"',
        "10: 'path' in [data.digits] is absolute\n"
        "  wanted: a path relative to the recipe's folder that stays in the workspace\n"
        "  found:  ~/digits.csv\n"
        "Data that lives elsewhere is named, and each user maps the name: location = "
        '"NAME"',
    ),
    "a path that leaves the workspace": Mistake(
        'path = "digits.csv"',
        'path = "../../../digits.csv"',
        "10: 'path' in [data.digits] leaves the workspace\n"
        "  wanted: a path relative to the recipe's folder that stays in the workspace\n"
        "  found:  ../../../digits.csv\n"
        "Data that lives elsewhere is named, and each user maps the name: location = "
        '"NAME"',
    ),
    "a path with a backslash": Mistake(
        'path = "digits.csv"',
        "path = 'data\\digits.csv'",
        "10: 'path' in [data.digits] contains a backslash\n"
        "  wanted: a path relative to the recipe's folder that stays in the workspace\n"
        "  found:  data\\digits.csv",
    ),
    "an empty path": Mistake(
        'path = "digits.csv"',
        'path = ""',
        "10: 'path' in [data.digits] is empty\n"
        "  wanted: a path relative to the recipe's folder that stays in the workspace\n"
        "  found:  an empty string",
    ),
    "a glob that goes up": Mistake(
        'include = ["*.py"]',
        'include = ["**/../x.py"]',
        "8: 'include' in [code] goes up after a wildcard\n"
        "  wanted: paths and globs at or below the recipe's folder, without '..'\n"
        "  found:  **/../x.py",
    ),
    "code beside the recipe": Mistake(
        'include = ["*.py"]',
        'include = ["../shared.py"]',
        "8: 'include' in [code] leaves the recipe's folder\n"
        "  wanted: paths and globs at or below the recipe's folder, without '..'\n"
        "  found:  ../shared.py\n"
        "A link in the recipe's folder to a file of the workspace is code too.",
    ),
    "code below and beside the recipe": Mistake(
        'include = ["*.py"]',
        'include = ["nets/../../shared/*.py"]',
        "8: 'include' in [code] leaves the recipe's folder\n"
        "  wanted: paths and globs at or below the recipe's folder, without '..'\n"
        "  found:  nets/../../shared/*.py\n"
        "A link in the recipe's folder to a file of the workspace is code too.",
    ),
    "code by an absolute path": Mistake(
        'include = ["*.py"]',
        'include = ["/etc/passwd"]',
        "8: 'include' in [code] is absolute\n"
        "  wanted: paths and globs at or below the recipe's folder, without '..'\n"
        "  found:  /etc/passwd\n"
        "A link in the recipe's folder to a file of the workspace is code too.",
    ),
    "code by a way around": Mistake(
        'include = ["*.py"]',
        'include = ["nets/../train.py"]',
        "8: 'include' in [code] goes up\n"
        "  wanted: paths and globs at or below the recipe's folder, without '..'\n"
        "  found:  nets/../train.py",
    ),
    "code of a stage beside the recipe": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "{data.digits}"]\ncode = ["../shared.py"]',
        "21: 'code' in [stages.train] leaves the recipe's folder\n"
        "  wanted: paths and globs at or below the recipe's folder, without '..'\n"
        "  found:  ../shared.py\n"
        "A link in the recipe's folder to a file of the workspace is code too.",
    ),
    "a metrics file outside the output": Mistake(
        'run = ["python", "train.py", "{data.digits}"]',
        'run = ["python", "train.py", "{data.digits}"]\nmetrics = "../metrics.json"',
        "21: 'metrics' in [stages.train] leaves the output\n"
        "  wanted: a path relative to the output that stays in the output\n"
        "  found:  ../metrics.json",
    ),
    "a package file outside": Mistake(
        'path = "digits.csv"',
        'package = "torch"\nfile = "../x"',
        "11: 'file' in [data.digits] leaves the package\n"
        "  wanted: a path relative to the package that stays in the package\n"
        "  found:  ../x",
    ),
    "the whole package": Mistake(
        'path = "digits.csv"',
        'package = "torch"\nfolder = "."',
        "11: 'folder' in [data.digits] names no file\n"
        "  wanted: a path relative to the package that stays in the package\n"
        "  found:  .",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_has_its_own_message(mistake: Mistake) -> None:
    with pytest.raises(InvalidInputError) as caught:
        changed(mistake.old, mistake.new)
    assert str(caught.value) == f"{PATH}:{mistake.message}"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"schema = 1\nname = 'caf\xe9'\n",
            "2: not UTF-8: byte 22 of the file\n"
            "  wanted: UTF-8\n"
            "  found:  0xe9\n"
            "Save the file as UTF-8.",
        ),
        (
            b"\xef\xbb\xbfschema = 1",
            "1: not TOML: it starts with a byte order mark\n"
            "  wanted: UTF-8 without it\n"
            "  found:  0xef 0xbb 0xbf\n"
            "Save the file as UTF-8 without a byte order mark.",
        ),
        (
            b"schema = 1\n\n[model\nname = 3",
            "3: not TOML: Expected ']' at the end of a table declaration (at line 3, column 7)\n"
            "  wanted: TOML 1.0\n"
            "  found:  [model",
        ),
        (
            b"schema = 1\nname = digits\n",
            "2: not TOML: Invalid value (at line 2, column 8)\n"
            "  wanted: TOML 1.0\n"
            "  found:  name = digits",
        ),
        (
            b"schema =",
            "1: not TOML: Invalid value (at end of document)\n"
            "  wanted: TOML 1.0\n"
            "  found:  schema =",
        ),
        (
            b"schema = 1\nx = '\x1b[2J'\n",
            "2: not TOML: Found invalid character '\\x1b' (at line 2, column 6)\n"
            "  wanted: TOML 1.0\n"
            "  found:  x = '\\x1b[2J'",
        ),
        (b"", "1: the recipe has no 'schema'\n  wanted: schema = 1\n  found:  nothing"),
        (
            b"a = " + b"[" * 3000 + b"]" * 3000,
            "1: not a recipe: its values are nested too deeply\n"
            "  wanted: a few levels\n"
            "  found:  hundreds",
        ),
    ],
)
def test_a_file_that_is_no_recipe_says_why(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_recipe(data, PATH)
    assert str(caught.value) == f"{PATH}:{message}"


def test_a_newer_schema_is_told_before_its_unknown_keys() -> None:
    with pytest.raises(InvalidInputError, match="update modelbuild"):
        changed("schema = 1", "schema = 2\nnovelty = true")


def test_lines_are_found_whatever_the_text_looks_like() -> None:
    text = '''\
# [not.a.table]
a = "# [x] = 1"
b = """
c = 1
""\\"""" # d = 1
"e.f" = [ # [g]
  "h = 1", { i = 1 }, [
    1 ],
]
j = { k = { l = [1, { m = 2 }], n = 1 }, o.p = \'\'\'
q = 1\'\'\', "r s" = 1 }
[ t . "u" ]
v.w = 2026-01-31 07:00:00
x = 1.5
[[y]]
z = 1
[[y]]
z = 2
'''
    tomllib.loads(text)
    lines: dict[int, list[str]] = {}
    for key, line in key_lines(text).items():
        lines.setdefault(line, []).append(key)
    assert lines == {
        2: ["a"],
        3: ["b"],
        6: ["e.f"],
        10: ["j", "j.k", "j.k.l", "j.k.n", "j.o", "j.o.p"],
        11: ["j.r s"],
        12: ["t", "t.u"],
        13: ["t.u.v", "t.u.v.w"],
        14: ["t.u.x"],
        15: ["y"],
        16: ["y.z"],
    }


def test_a_key_of_thousands_of_parts_takes_no_memory_by_its_square() -> None:
    assert len(key_lines(".".join(["a"] * 5000) + " = 1")) == 32


def test_references_are_the_names_in_single_braces() -> None:
    assert references("{stages.train}/m-{params.lr}{out}") == ["stages.train", "params.lr", "out"]
    assert references("{{out}} {{{seed}}}") == ["seed"]
    with pytest.raises(ValueError, match="a single } at character 3"):
        references("ab}")


def test_references_are_replaced_once() -> None:
    values = {"out": "{seed}", "seed": "7"}
    assert expand("{out}/{seed} {{seed}} {{{seed}}}", values) == "{seed}/7 {seed} {7}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a b", "a b"),
        (True, "true"),
        (3, "3"),
        (0.001, "0.001"),
        (1e-7, "1e-07"),
        (3.0, "3.0"),
        (((1, 2.5), ("é", False)), '[[1, 2.5], ["é", false]]'),
    ],
)
def test_parameters_are_rendered_as_scripts_read_them(value: object, text: str) -> None:
    assert render_param(value) == text  # type: ignore[arg-type]


def test_names_become_suffixes_of_environment_variables() -> None:
    assert variable_suffix("train-set.v2") == "TRAIN_SET_V2"


SETTINGS = BASE.replace("lr = 0.001", 'lr = 0.001\ntag = "a"\nlayers = [1, 2]\nfast = true')


@pytest.mark.parametrize(
    ("setting", "param", "value"),
    [
        ("params.lr=0.01", "lr", 0.01),
        ("params.lr = 1", "lr", 1.0),
        ("params.model.depth=9", "model.depth", 9),
        ("params.fast=false", "fast", False),
        ("params.layers=[3, [4]]", "layers", (3, (4,))),
        ('params.tag="x y"', "tag", "x y"),
        ("params.tag=x=y # z", "tag", "x=y # z"),
        ("params.tag=3", "tag", "3"),
        ("params.tag=", "tag", ""),
    ],
)
def test_a_setting_replaces_a_parameter(setting: str, param: str, value: object) -> None:
    recipe = parse(SETTINGS)
    found = override(recipe, [setting])
    assert found.params == {**recipe.params, param: value}
    assert type(found.params[param]) is type(value)
    assert list(found.params) == list(recipe.params)


def test_seed_and_threads_can_be_set() -> None:
    recipe = override(parse(SETTINGS), ["seed=1", "hardware.threads=4", "determinism.seed=7"])
    assert recipe.determinism == Determinism(seed=7)
    assert recipe.hardware == Hardware(threads=4)


KNOWN_SETTINGS = (
    "  wanted: one of params.lr, params.tag, params.layers, params.fast, params.model.depth, "
    "seed, determinism.seed, hardware.threads\n"
)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("params.lr", "no '='\n  wanted: NAME=VALUE\n  found:  params.lr"),
        (
            "lr=1",
            f"there is no such value to set\n{KNOWN_SETTINGS}"
            "  found:  lr\nDid you mean 'params.lr'?",
        ),
        (
            "params.model.dept=1",
            f"there is no such value to set\n{KNOWN_SETTINGS}"
            "  found:  params.model.dept\nDid you mean 'params.model.depth'?",
        ),
        (
            "params.lr=fast",
            "wrong type for 'params.lr'\n"
            "  wanted: the type in the recipe, a float: 0.001\n"
            "  found:  a string: 'fast'",
        ),
        (
            "params.fast=1",
            "wrong type for 'params.fast'\n"
            "  wanted: the type in the recipe, a boolean: true\n"
            "  found:  an integer: 1",
        ),
        (
            "params.layers=1",
            "wrong type for 'params.layers'\n"
            "  wanted: the type in the recipe, a list of 2\n"
            "  found:  an integer: 1",
        ),
        (
            "params.lr=1.0\nb = 2",
            "wrong type for 'params.lr'\n"
            "  wanted: the type in the recipe, a float: 0.001\n"
            "  found:  a string: '1.0\\nb = 2'",
        ),
        (
            "params.lr=inf",
            "'params.lr' is out of range\n"
            "  wanted: a finite number, or an integer of 64 bits\n"
            "  found:  a float: inf",
        ),
        (
            "seed=-1",
            "'seed' is out of range\n"
            "  wanted: an integer from 0 to 4294967295\n"
            "  found:  an integer: -1",
        ),
        (
            "hardware.threads=0",
            "'hardware.threads' is out of range\n"
            "  wanted: an integer from 1 to 65535\n"
            "  found:  an integer: 0",
        ),
    ],
)
def test_a_wrong_setting_has_its_own_message(setting: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        override(parse(SETTINGS), [setting])
    shown = setting.replace("\n", "\\n")
    assert str(caught.value) == f"--set {shown}: {message}"


def test_reading_a_recipe_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom pathlib import PurePosixPath\n"
        "from modelbuild.spec.recipe_file import parse_recipe\n"
        "parse_recipe(sys.stdin.buffer.read(), PurePosixPath('recipe.toml'))\n"
        "print(*{'packaging', 'difflib', 'shlex', 'json', 'rich', 'tomlkit'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=EXAMPLE.encode(), capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == ""


def test_a_name_that_was_probably_meant_is_shown_printable() -> None:
    before, train, after = EXAMPLE.partition("[stages.train]")
    stage = '[stages.first]\nrun = ["true"]\nstages = ["train"]\n\n'
    text = before + stage + train.replace("train", '"tra\u2028in"') + after
    with pytest.raises(InvalidInputError) as error:
        parse_recipe(text.encode(), PATH)
    assert str(error.value).endswith("Did you mean 'stages.tra\\u2028in'?")
