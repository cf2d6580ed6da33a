"""`modelbuild init`: a recipe for a training script, told from its text."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from conftest import Tiny

from modelbuild.draft.initialise import ATTRIBUTES, InitReport, InitRequest, init
from modelbuild.errors import ModelbuildError, UsageError
from modelbuild.spec.recipe import Device, PathData
from modelbuild.store.store import Store

ARGPARSE = """\
'''Logistic regression on last year's customers.

It takes seconds.
'''
import argparse
import json
from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression

from features import matrix

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, default=Path("data/customers.csv"), help="see fit.py")
parser.add_argument("--output-dir", default="results")
parser.add_argument("--C", type=float, default=1.0)
parser.add_argument("--max-iter", type=int, default=200)
parser.add_argument("--solver", default="lbfgs", choices=["lbfgs", "liblinear"])
parser.add_argument("--random-state", type=int, default=13)
parser.add_argument("--verbose", action="store_true")


def main():
    args = parser.parse_args()
    rows = np.genfromtxt(args.data, delimiter=",", skip_header=1)
    x, y = matrix(rows)
    model = LogisticRegression(C=args.C, max_iter=args.max_iter, random_state=args.random_state)
    model.fit(x, y)
    out = Path(args.output_dir)
    out.mkdir(exist_ok=True)
    joblib.dump(model, out / "model.joblib")
    (out / "metrics.json").write_text(json.dumps({"accuracy": model.score(x, y)}))


if __name__ == "__main__":
    main()
"""

TORCH = """\
import argparse

import torch
import torch.nn.functional as F
from torch import nn

import nets.cnn
from nets.tools import seeded

try:
    import wandb
except ImportError:
    wandb = None


def main():
    # as the well-known example has it
    parser = argparse.ArgumentParser(description="PyTorch MNIST Example")
    parser.add_argument("data", nargs="?", default="mnist.npz")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="(default: 64)")
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 64])
    parser.add_argument("--no-accel", action="store_true")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--num-threads", type=int, default=2)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--config", default="config.yaml")
    parser.add_argument("--resume", default=None)
    parser.add_argument("--log-dir", default="runs")
    parser.add_argument("--checkpoint", default="mnist.pt")
    args = parser.parse_args()
    torch.save({}, args.checkpoint)


if __name__ == "__main__":
    main()
"""

HARD_CODED = """\
import os
import pickle

import pandas as pd
import yaml

CONFIG = yaml.safe_load(open("config.yaml"))
DATA = "train.csv"
SEED = 3
table = pd.read_csv(DATA)
more = pd.read_parquet(os.path.join("parts", "a.parquet"))
os.makedirs("models", exist_ok=True)
with open("models/model.pkl", "wb") as file:
    pickle.dump(table, file)
with open(f"models/report-{SEED}.txt", "w") as file:
    file.write("done")
table.to_csv("predictions.csv")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "churn"
    folder.mkdir()
    return folder


def write(folder: Path, **files: str) -> None:
    """Files by name, `__` for `/` and the last `_` for the dot."""
    for key, text in files.items():
        stem, _, suffix = key.replace("__", "/").rpartition("_")
        path = folder / f"{stem}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def guess(folder: Path, script: str | None = None, **options: object) -> InitReport:
    return init(InitRequest(folder=folder, script=script, **options))  # type: ignore[arg-type]


def packages(report: InitReport) -> set[str]:
    return set(report.recipe.environment.packages or ())


def argument(report: InitReport, option: str) -> str | None:
    """What the drafted command gives for an option."""
    (stage,) = report.recipe.stages.values()
    return stage.run[stage.run.index(option) + 1] if option in stage.run else None


# -- three scripts ---------------------------------------------------------------------------------


@pytest.fixture
def churn(folder: Path) -> Path:
    write(
        folder,
        fit_py=ARGPARSE,
        features_py="def matrix(rows):\n    return rows[:, :2], rows[:, 2]\n",
    )
    rows = "".join(f"{age},{age % 21},{int(age % 21 < 9)}\n" for age in range(18, 90))
    write(
        folder, data__customers_csv=f"age,orders,left\n{rows}", test_features_py="import pytest\n"
    )
    return folder


def test_a_script_with_options_gets_a_whole_recipe(churn: Path) -> None:
    report = guess(churn, threads=2)
    assert (churn / "recipe.toml").read_text() == (
        Path(__file__).parent / "golden" / "init-recipe.toml"
    ).read_text()
    assert report.notes == ()
    assert report.script == "fit.py"


def test_a_torch_script_in_the_manner_of_the_examples(folder: Path) -> None:
    write(folder, main_py=TORCH, nets__cnn_py="import einops\n", nets__tools_py="import tqdm\n")
    write(folder, mnist_npz="", config_yaml="width: 3\n", other_py="import flask\n")
    report = guess(folder)
    recipe = report.recipe
    assert packages(report) == {"einops", "torch", "tqdm"}
    assert recipe.code == ("main.py", "nets/**/*.py", "config.yaml")
    assert recipe.data == {"mnist": PathData(path="mnist.npz")}
    assert recipe.params == {"batch-size": 64, "lr": 1e-5}
    assert recipe.determinism.seed == 1
    assert recipe.stages["train"].run == (
        *("python", "main.py", "{data.mnist}"),
        *("--batch-size", "{params.batch-size}", "--lr", "{params.lr}", "--seed", "{seed}"),
        *("--num-threads", "{threads}", "--device", "cpu"),
        *("--log-dir", "{out}", "--checkpoint", "{out}/mnist.pt"),
    )
    assert report.notes == ()


def test_cuda_is_declared_where_the_script_uses_it_and_a_gpu_is_there(folder: Path) -> None:
    write(folder, main_py=TORCH)
    report = guess(folder, has_gpu=True)
    assert report.recipe.hardware.device is Device.CUDA
    assert argument(report, "--device") == "cuda"
    (folder / "recipe.toml").unlink()
    write(folder, main_py=TORCH.replace("cuda", "cpu"))
    assert guess(folder, has_gpu=True).recipe.hardware.device is Device.CPU


def test_what_a_script_with_fixed_paths_needs_is_said(folder: Path) -> None:
    write(
        folder,
        fit_py=HARD_CODED,
        train_csv="",
        parts__a_parquet="",
        config_yaml="",
        predictions_csv="",
    )
    report = guess(folder)
    assert report.recipe.data == {
        "train": PathData(path="train.csv"),
        "a": PathData(path="parts/a.parquet"),
    }
    assert report.recipe.stages["fit"].data == ("a", "train")
    assert report.recipe.code == ("fit.py", "config.yaml")
    assert report.notes == (
        "fit.py:8 reads train.csv: a stage finds data elsewhere. Let it read "
        'os.environ.get("MODELBUILD_DATA_TRAIN", "train.csv").',
        "fit.py:11 reads parts/a.parquet: a stage finds data elsewhere. Let it read "
        'os.environ.get("MODELBUILD_DATA_A", "parts/a.parquet").',
        "fit.py writes models/model.pkl (line 13), models/report-... (line 15), "
        "predictions.csv (line 17): a stage writes to its output folder only. Put what is to be "
        'kept below os.environ.get("MODELBUILD_OUT", ".").',
    )
    text = " ".join((folder / "recipe.toml").read_text().replace("#", " ").split())
    for note in report.notes:
        assert note in text


def test_a_script_in_a_folder_finds_modules_of_the_recipes_folder(folder: Path) -> None:
    write(folder, jobs__train_py="import nets, beside\n", nets__a_py="", jobs__beside_py="")
    (stage,) = guess(folder, "jobs/train.py").recipe.stages.values()
    assert stage.env == {"PYTHONPATH": "."}


def test_a_script_that_knows_modelbuild_out_is_left_alone(folder: Path) -> None:
    text = 'import os\nopen(os.path.join(os.environ["MODELBUILD_OUT"], "m.txt"), "w")\n'
    write(folder, train_py=text)
    assert guess(folder).notes == ()


# -- which script ----------------------------------------------------------------------------------

PROGRAM = "if __name__ == '__main__':\n    pass\n"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["train", "evaluate", "main"], "train"),
        (["main", "evaluate", "plot"], "main"),
        (["train_cnn", "plot"], "train_cnn"),
        (["fit", "test_fit", "setup", "conftest"], "fit"),
    ],
)
def test_the_usual_name_is_chosen(folder: Path, names: list[str], chosen: str) -> None:
    write(folder, **{f"{name}_py": PROGRAM for name in names})
    assert guess(folder).script == f"{chosen}.py"


def test_programs_go_before_modules_and_the_top_before_what_lies_below(folder: Path) -> None:
    write(folder, fit_py=PROGRAM, train_lib_py="", deep__train_py=PROGRAM, broken_py="def:")
    assert guess(folder).script == "fit.py"


def test_several_scripts_are_named_and_one_can_be_chosen(folder: Path) -> None:
    write(folder, train_a_py=PROGRAM, train_b_py=PROGRAM, help_py=PROGRAM)
    with pytest.raises(UsageError) as caught:
        guess(folder)
    assert str(caught.value) == (
        f"several scripts in {folder} can be the training script\n"
        "  found: train_a.py, train_b.py\n"
        f"Choose one: modelbuild init {folder} --script train_a.py"
    )
    assert guess(folder, "train_b.py").script == "train_b.py"


def test_a_script_that_is_not_there_names_the_nearest(folder: Path) -> None:
    write(folder, train_py=PROGRAM)
    with pytest.raises(UsageError) as caught:
        guess(folder, "trian.py")
    assert str(caught.value) == (
        f"--script trian.py: there is no such Python file in {folder}\n"
        "Did you mean: --script train.py"
    )


def test_no_script_no_folder_and_a_file_as_folder(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        guess(folder)
    assert str(caught.value) == (
        f"there is no Python script in {folder}\n"
        "Name the folder with the training script: modelbuild init FOLDER"
    )
    with pytest.raises(UsageError, match="there is no folder"):
        guess(folder / "nowhere")
    write(folder, train_py=PROGRAM)
    with pytest.raises(UsageError) as caught:
        guess(folder / "train.py")
    assert str(caught.value) == (
        f"{folder}/train.py is not a folder\nmodelbuild init {folder} --script train.py"
    )


def test_a_script_that_is_not_python_is_an_error_with_its_line(folder: Path) -> None:
    write(folder, train_py="import os\n\nprint 'hello'\n")
    with pytest.raises(ModelbuildError) as caught:
        guess(folder)
    assert str(caught.value).startswith(
        "train.py:3: not a Python program that this Python understands\n  found: "
    )


# -- packages --------------------------------------------------------------------------------------


def test_modules_become_the_packages_that_bring_them(folder: Path) -> None:
    modules = ["sklearn.svm", "PIL", "cv2", "yaml", "bs4", "skimage.io", "dateutil", "attr"]
    modules += ["google.protobuf", "umap", "xgboost", "json", "helper", "_private", "größe"]
    lines = [f"import {module}" for module in modules]
    lines += ["from typing import TYPE_CHECKING", "if TYPE_CHECKING:", "    import pandas"]
    write(folder, train_py="\n".join([*lines, PROGRAM]), helper_py="import tqdm\n")
    assert packages(guess(folder)) == {
        *("scikit-learn", "pillow", "opencv-python-headless", "pyyaml", "beautifulsoup4"),
        *("scikit-image", "python-dateutil", "attrs", "protobuf", "umap-learn", "xgboost", "tqdm"),
    }


def installed(tmp_path: Path, **versions: str) -> Path:
    """An environment with packages of one module each."""
    prefix = tmp_path / "env"
    for name, version in versions.items():
        site = prefix / "lib" / "python3.12" / "site-packages"
        information = site / f"{name}-{version}.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(
            f"Name: {name.replace('_', '-')}\nVersion: {version}\n"
        )
        module = name.partition("_")[0]
        (information / "RECORD").write_text(f"{module}/__init__.py,,\n")
    return prefix


def test_packages_are_pinned_to_what_is_installed(folder: Path, tmp_path: Path) -> None:
    text = "import torch, cv2\ntry:\n    import wandb\nexcept ImportError:\n    pass\n"
    write(folder, train_py=text)
    prefix = installed(tmp_path, torch="2.13.0+cu130", cv2_contrib="4.1", wandb="0.20")
    report = guess(folder, prefix=prefix)
    assert packages(report) == {"torch==2.13.0", "cv2-contrib==4.1", "wandb==0.20"}


def test_an_environment_that_lacks_a_package_is_not_where_it_runs(
    folder: Path, tmp_path: Path
) -> None:
    write(folder, train_py="import torch, numpy\n")
    assert packages(guess(folder, prefix=installed(tmp_path, numpy="2.0"))) == {"numpy", "torch"}


OWN = """\
import sys
sys.path.insert(0, "..")
import torch
from wavelib import filters
"""


@pytest.mark.parametrize("file", ["wavelib__filters_py", "wavelib_py", "src__wavelib__a_py"])
def test_a_module_above_the_recipe_is_no_strangers_package(tmp_path: Path, file: str) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    write(tmp_path, experiments__train_py=OWN, **{file: ""})
    report = guess(tmp_path / "experiments", prefix=installed(tmp_path, torch="2.13.0"))
    assert packages(report) == {"torch==2.13.0"}
    lies = "../src/wavelib" if file.startswith("src") else "../wavelib"
    assert report.notes[0] == (
        f"train.py imports wavelib ({lies}): a recipe's code lies at or below its folder. Remove "
        "this recipe, and write it there: cd .. && modelbuild init --script experiments/train.py"
    )


def test_a_script_of_a_folder_that_changes_sys_path_finds_what_lies_above(tmp_path: Path) -> None:
    write(tmp_path, experiments__train_py=OWN, wavelib__filters_py="")
    report = guess(tmp_path, "experiments/train.py")
    assert packages(report) == {"torch"}
    assert report.recipe.stages["train"].env == {"PYTHONPATH": "."}


def test_a_module_below_the_recipe_is_found_where_it_lies(folder: Path) -> None:
    write(folder, train_py="import wavelib, xgboost\n", models__xgboost_py="")
    write(folder, src__wavelib__a_py="import tqdm, other\n", src__other_py="")
    report = guess(folder)
    assert packages(report) == {"tqdm", "xgboost"}
    assert report.recipe.stages["train"].env == {"PYTHONPATH": "src"}
    assert report.recipe.code == ("train.py", "src/**/*.py")


def test_a_folder_that_the_script_names_may_have_its_modules(folder: Path) -> None:
    write(folder, train_py=OWN.replace('".."', '"./vendor"'), vendor__wavelib_py="")
    report = guess(folder)
    assert packages(report) == {"torch"}
    assert report.recipe.stages["train"].env == {"PYTHONPATH": "vendor"}


def test_a_folder_that_is_called_like_a_package_is_not_that_module(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    write(tmp_path, torch__train_py="import torch, datasets, umap\n", datasets__prepare_py="")
    write(tmp_path, umap__readme_txt="")
    prefix = installed(tmp_path, torch="2.13.0", datasets="3.0", umap="0.5")
    assert packages(guess(tmp_path / "torch", prefix=prefix)) == {
        *("torch==2.13.0", "datasets==3.0", "umap==0.5"),
    }


def test_the_folders_own_list_of_packages_is_used(folder: Path) -> None:
    write(folder, train_py="import torch, numpy\n", requirements_txt="torch>=2\n")
    report = guess(folder)
    assert report.recipe.environment.requirements == "requirements.txt"
    text = (folder / "recipe.toml").read_text()
    assert "It does not name what is imported, unless others bring it: numpy." in text
    (folder / "recipe.toml").unlink()
    project = '[project]\nname = "x"\nrequires-python = ">=3.12"\ndependencies = ["torch"]\n'
    write(folder, pyproject_toml=project)
    environment = guess(folder).recipe.environment
    assert (environment.project, environment.python) == ("pyproject.toml", "3.12")


def test_a_list_that_cannot_be_used_is_not_named(folder: Path) -> None:
    write(folder, train_py="import torch\n", requirements_txt="--no-index\ntorch\n")
    assert packages(guess(folder)) == {"torch"}
    assert "requirements.txt can't be used: requirements.txt:1" in " ".join(
        (folder / "recipe.toml").read_text().replace("#", " ").split()
    )


@pytest.mark.parametrize("text", ["3.12", "3.12.4\n", "cpython-3.12\n"])
def test_the_version_of_python_is_the_one_that_the_folder_names(folder: Path, text: str) -> None:
    write(folder, train_py="")
    (folder / ".python-version").write_text(text)
    assert guess(folder, python="3.13").recipe.environment.python == "3.12"


# -- data, parameters, output ----------------------------------------------------------------------


def options(folder: Path, *calls: str) -> InitReport:
    lines = ["import argparse", "parser = argparse.ArgumentParser()"]
    lines += [f"parser.add_argument({call})" for call in calls]
    write(folder, train_py="\n".join([*lines, "args = parser.parse_args()"]))
    return guess(folder)


def test_defaults_are_followed_through_names_and_joined_paths(folder: Path) -> None:
    write(folder, data__a_csv="", data__b_csv="")
    text = """\
        import argparse
        import os
        from pathlib import Path
        ROOT = Path("data")
        RATE = 0.5
        parser = argparse.ArgumentParser()
        parser.add_argument("--first", default=ROOT / "a.csv")
        parser.add_argument("--second", default=os.path.join("data", "b.csv"))
        parser.add_argument("--lr", default=RATE)
        parser.add_argument("--out")
        """
    write(folder, train_py=text)
    report = guess(folder)
    assert argument(report, "--first") == "{data.a}"
    assert argument(report, "--second") == "{data.b}"
    assert report.recipe.params == {"lr": 0.5}
    assert report.notes == ()


CONFIGURED = """\
import argparse, os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = os.path.dirname(os.path.abspath(__file__))

@dataclass
class Config:
    lr: float = 0.1
    names: str = "data/names.txt"

config = Config()
parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=Path, default=HERE / "data" / "rows.csv")
parser.add_argument("--vocab", type=Path, default=os.path.join(FOLDER, "data/vocab.txt"))
parser.add_argument("--names", type=Path, default=config.names)
parser.add_argument("--lr", type=float, default=Config.lr)
parser.add_argument("--model", type=Path, default=Path("model.json"))
args = parser.parse_args()
args.model.write_text("1")
"""


def test_paths_beside_the_script_and_fields_of_a_configuration_are_defaults(folder: Path) -> None:
    write(folder, train_py=CONFIGURED)
    write(folder, data__rows_csv="", data__vocab_txt="", data__names_txt="")
    report = guess(folder)
    assert report.recipe.stages["train"].run == (
        *("python", "train.py", "--rows", "{data.rows}", "--vocab", "{data.vocab}"),
        *("--names", "{data.names}", "--lr", "{params.lr}", "--model", "{out}/model.json"),
    )
    assert report.recipe.params == {"lr": 0.1}
    assert report.notes == ()


def evaluating(lr: float, model: str) -> str:
    return f"""\
    import argparse, tqdm
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="{model}")
    parser.add_argument("--rows", default="data/rows.csv")
    parser.add_argument("--lr", type=float, default={lr})
    parser.add_argument("--out", default="metrics.json")
    parser.parse_args()
    """


@pytest.mark.parametrize("name", ["evaluate_py", "eval_model_py"])
def test_a_script_that_evaluates_what_is_trained_becomes_a_stage(folder: Path, name: str) -> None:
    write(folder, train_py=CONFIGURED, **{name: evaluating(0.1, "./model.json")})
    write(folder, data__rows_csv="", data__vocab_txt="", data__names_txt="")
    recipe = guess(folder).recipe
    script = f"{name.removesuffix('_py')}.py"
    assert recipe.last_stage == script.removesuffix(".py")
    assert recipe.stages[recipe.last_stage].run == (
        *("python", script, "--model", "{stages.train}/model.json", "--rows", "{data.rows}"),
        *("--lr", "{params.lr}", "--out", "{out}/metrics.json"),
    )
    assert recipe.stages[recipe.last_stage].metrics == "metrics.json"
    assert set(recipe.data) == {"rows", "vocab", "names"}
    assert recipe.code == ("train.py", script)
    assert recipe.environment.packages == ("tqdm",)


def test_an_evaluation_has_only_metrics_that_it_names_itself(folder: Path) -> None:
    text = f"import importlib\n{textwrap.dedent(evaluating(0.1, 'model.json'))}"
    write(folder, train_py=f"{CONFIGURED}open('metrics.json', 'w')\n")
    write(folder, evaluate_py=text.replace("metrics.json", "scores.json"))
    stages = guess(folder).recipe.stages
    assert stages["train"].metrics == "metrics.json"
    assert stages["evaluate"].metrics is None


def test_a_parameter_of_the_evaluation_with_another_default_is_left_alone(folder: Path) -> None:
    write(folder, train_py=CONFIGURED, evaluate_py=evaluating(0.2, "model.json"))
    recipe = guess(folder).recipe
    assert "--lr" not in recipe.stages["evaluate"].run
    assert recipe.params["lr"] == 0.1


def test_an_evaluation_of_something_else_is_no_stage(folder: Path) -> None:
    write(folder, train_py=CONFIGURED, evaluate_py=evaluating(0.1, "other.json"))
    assert set(guess(folder).recipe.stages) == {"train"}


def test_the_one_file_of_data_is_taken_where_none_is_named(folder: Path) -> None:
    write(folder, data__train_csv="")
    report = options(folder, '"--data-path", required=True', '"--out"')
    assert argument(report, "--data-path") == "{data.train}"


def test_defaults_may_be_paths_from_the_scripts_folder(folder: Path) -> None:
    text = """\
        import argparse
        parser = argparse.ArgumentParser()
        parser.add_argument("--data", default="../data/train.csv")
        parser.add_argument("--test-data", default="../data/absent.csv")
        parser.add_argument("--out")
        """
    write(folder, experiments__train_py=text, data__train_csv="", data__test_csv="")
    report = guess(folder, "experiments/train.py")
    assert argument(report, "--data") == "{data.train}"
    assert report.recipe.data == {"train": PathData(path="data/train.csv")}


def test_a_folder_is_not_given_for_a_file(folder: Path) -> None:
    write(folder, data__train_csv="", data__test_csv="")
    report = options(folder, '"--data", default="../data/absent.csv"', '"--out"')
    assert report.recipe.data == {}
    assert report.notes == (
        "train.py reads data from --data ('../data/absent.csv' is not here): declare it as "
        "[data.NAME], and pass {data.NAME} in `run`.",
    )


def test_data_that_is_not_here_is_said(folder: Path) -> None:
    report = options(folder, '"--data-dir", default="/srv/images"', '"--out"')
    assert report.notes == (
        "train.py reads data from --data-dir ('/srv/images' is not here): declare it as "
        "[data.NAME], and pass {data.NAME} in `run`.",
    )


def test_a_needed_argument_without_a_default_is_said(folder: Path) -> None:
    report = options(folder, '"--width", type=int, required=True', '"--out"')
    assert report.notes == ("train.py needs --width, which has no default: add it to `run`.",)


def test_values_that_a_parameter_cannot_hold_keep_their_default(folder: Path) -> None:
    report = options(
        folder,
        '"--out"',
        '"--huge", default=1000000000000000000000',
        '"--limit", default=1e999',
        '"--flag", type=bool, default=False',
        '"--sizes", default=[1, 2]',
        '"--name", default=""',
        '"--negative", default=-3',
        '"--brace", default="{x}"',
        '"--quote", default="a \\"b\\" \\\\n"',
    )
    assert report.recipe.params == {"negative": -3, "brace": "{x}", "quote": 'a "b" \\n'}


def test_the_options_of_click_are_read_too(folder: Path) -> None:
    text = """\
        import click

        @click.command()
        @click.option("--lr", default=0.1)
        @click.option("--shout/--no-shout", default=False)
        @click.option("--output", type=click.Path())
        def main(lr, shout, output):
            pass
        """
    write(folder, train_py=text)
    report = guess(folder)
    assert report.recipe.params == {"lr": 0.1}
    assert argument(report, "--output") == "{out}"


def test_an_output_is_known_by_its_use(folder: Path) -> None:
    text = """\
        import argparse, pickle
        parser = argparse.ArgumentParser()
        parser.add_argument("--weights", default="weights.pkl")
        args = parser.parse_args()
        pickle.dump(1, open(args.weights, "wb"))
        """
    write(folder, train_py=text, weights_pkl="left by an earlier run")
    report = guess(folder)
    assert argument(report, "--weights") == "{out}/weights.pkl"
    assert report.recipe.data == {}


def test_data_of_one_name_gets_several(folder: Path) -> None:
    write(folder, a__train_csv="", b__train_csv="", a__x_csv="")
    report = options(
        folder, '"--one", default="a/train.csv"', '"--two", default="b/train.csv"', '"--out"'
    )
    assert report.recipe.data == {
        "train": PathData(path="a/train.csv"),
        "train-2": PathData(path="b/train.csv"),
    }


def test_files_outside_the_workspace_are_no_data(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.csv").write_text("")
    report = options(folder, '"--table", default="../outside.csv"', '"--out"')
    assert report.recipe.data == {}


def test_imports_that_cannot_be_told_take_in_all_code(folder: Path) -> None:
    write(folder, train_py="import importlib\nimportlib.import_module('x')\n", plugin_py="")
    assert guess(folder).recipe.code == ("**/*.py",)


# -- what is written -------------------------------------------------------------------------------


def test_a_recipe_is_never_overwritten(folder: Path) -> None:
    write(folder, train_py="", recipe_toml="mine\n")
    with pytest.raises(ModelbuildError) as caught:
        guess(folder)
    assert caught.value.exit_code == 1
    assert str(caught.value) == (
        f"there is a recipe already: {folder}/recipe.toml\n"
        f"To build it: modelbuild build {folder}/recipe.toml"
    )
    assert (folder / "recipe.toml").read_text() == "mine\n"
    assert sorted(path.name for path in folder.iterdir()) == ["recipe.toml", "train.py"]


def test_git_is_told_beside_the_lock_and_keeps_its_other_lines(folder: Path) -> None:
    root = folder.parent
    (root / ".git").mkdir()
    (root / ".gitignore").write_bytes(b"\xff.cache\n*.pyc")
    (root / ".gitattributes").write_text("*.lock -diff\n")
    write(folder, train_py="")
    report = guess(folder)
    assert report.written == (
        folder / "recipe.toml",
        root / ".gitignore",
        root / ".gitattributes",
    )
    assert (root / ".gitignore").read_bytes() == b"\xff.cache\n*.pyc\nresult-*\n"
    assert (root / ".gitattributes").read_text() == f"*.lock -diff\n{ATTRIBUTES}\n"
    (folder / "recipe.toml").unlink()
    assert guess(folder).written == (folder / "recipe.toml",)


def test_git_shows_the_lock_ignores_the_links_and_leaves_conflicts_to_be_seen(
    folder: Path,
) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        done = subprocess.run(
            ["git", "-C", str(folder), *identity, *words],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout

    git("init", "-q", "-b", "main")
    git("config", "core.autocrlf", "true")
    (folder / ".gitattributes").write_text("*.lock binary merge=union\n")
    write(folder, train_py="", model_lock="a\n")
    guess(folder)
    (folder / "result-churn").symlink_to("/nowhere")
    git("add", "-A")
    git("commit", "-qm", "one")
    assert "result-churn" not in git("ls-files")
    git("checkout", "-qb", "other")
    write(folder, model_lock="b\n")
    git("commit", "-qam", "two")
    git("checkout", "-q", "main")
    assert (folder / "model.lock").read_bytes() == b"a\n"
    (folder / "model.lock").write_bytes(b"c\r\n")
    assert "+c" in git("diff")
    git("commit", "-qam", "three")
    assert git("show", "HEAD:model.lock") == "c\n"
    git("merge", "other")
    assert (folder / "model.lock").read_text().startswith("<<<<<<<")


def test_the_name_is_the_folders_or_the_one_given(tmp_path: Path) -> None:
    odd = tmp_path / "Größe (1)"
    odd.mkdir()
    write(odd, train_py="")
    assert guess(odd).recipe.name == "Gr-e-1"
    (odd / "recipe.toml").unlink()
    assert guess(odd, name="size").recipe.name == "size"
    (odd / "recipe.toml").unlink()
    with pytest.raises(UsageError) as caught:
        guess(odd, name="a b")
    assert str(caught.value) == (
        "--name a b: a recipe can't have this name\n"
        "  wanted: letters, digits, '_', '.' and '-', at most 80"
    )
    assert not (odd / "recipe.toml").exists()


# -- the command -----------------------------------------------------------------------------------


def test_the_command_prints_the_path_and_what_comes_next(tiny: Tiny) -> None:
    (tiny.root / "recipe.toml").unlink()
    (tiny.root / "evaluate.py").unlink()
    ran = tiny.run("init")
    assert ran.code == 0
    assert ran.out == "recipe.toml\n"
    assert ran.err == (
        "wrote recipe.toml\n"
        "wrote .gitignore\n"
        "wrote .gitattributes\n"
        "left to do in train.py, or in the recipe:\n"
        "  - train.py reads sys.argv: write its arguments into `run`.\n"
        "next:\n"
        "  modelbuild build recipe.toml\n"
        "  modelbuild verify --rebuild recipe.toml\n"
    )


def test_the_active_environment_decides_versions(tiny: Tiny, tmp_path: Path) -> None:
    (tiny.root / "recipe.toml").unlink()
    tiny.write("train.py", "import torch\n")
    prefix = installed(tmp_path, torch="2.13.0+cpu")
    ran = tiny.run("init", "--json", "--script", "train.py", VIRTUAL_ENV=str(prefix))
    recipe = tomllib.loads(Path(ran.json["path"]).read_text())
    assert recipe["environment"] == {"python": "3.12", "packages": ["torch==2.13.0"]}


def test_a_drafted_recipe_builds_as_it_is(tiny: Tiny) -> None:
    (tiny.root / "recipe.toml").unlink()
    tiny.write(
        "train.py",
        """\
        import argparse, json, os, random
        parser = argparse.ArgumentParser()
        parser.add_argument("--numbers", default="numbers.txt")
        parser.add_argument("--scale", type=float, default=0.5)
        parser.add_argument("--seed", type=int, default=3)
        parser.add_argument("--out", default="out")
        args = parser.parse_args()
        random.seed(args.seed)
        total = sum(map(int, open(args.numbers))) * args.scale * random.random()
        json.dump({"total": total}, open(os.path.join(args.out, "metrics.json"), "w"))
        """,
    )
    assert tiny.run("init", "--script", "train.py").code == 0
    stages = tiny.build()
    assert stages["train"]["how"] == "built"
    assert stages["train"]["metrics"].keys() == {"total"}
    assert tiny.run("verify", "--rebuild").code == 0


@pytest.mark.network
@pytest.mark.slow
def test_init_then_build_with_packages_from_the_index(churn: Path, store: Store) -> None:
    for words in (["init"], ["build"], ["verify", "--rebuild"]):
        done = subprocess.run(
            [sys.executable, "-m", "modelbuild", *words],
            cwd=churn,
            env={k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert "rebuild identical to the output in the store" in done.stdout
