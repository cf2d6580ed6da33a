"""The recipes in `recipes/`: they parse, they are in step with the lock, and they build."""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from conftest import Tiny, how

from modelbuild.locking.code import recipe_code, stage_code
from modelbuild.spec.recipe import Level, Recipe
from modelbuild.spec.recipe_file import parse_recipe
from modelbuild.store.store import Store

ROOT = Path(__file__).parents[1]
NAMES = ["chars", "digits", "tabular"]
each_recipe = pytest.mark.parametrize("name", NAMES)


def recipe_of(name: str) -> Recipe:
    path = PurePosixPath("recipes", name, "recipe.toml")
    return parse_recipe((ROOT / path).read_bytes(), path)


def scripts(name: str) -> dict[str, str]:
    folder = ROOT / "recipes" / name
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py")}


def imports(text: str) -> set[str]:
    """The outermost names of all modules that a script imports."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name.partition(".")[0] for name in found}


def test_there_are_three_recipes() -> None:
    assert sorted(path.parent.name for path in ROOT.glob("recipes/*/recipe.toml")) == NAMES


@each_recipe
def test_a_recipe_is_named_after_its_folder(name: str) -> None:
    assert recipe_of(name).name == name


@each_recipe
def test_a_recipe_has_a_short_readme_with_the_command_that_builds_it(name: str) -> None:
    lines = (ROOT / "recipes" / name / "README.md").read_text().splitlines()
    assert lines[0] == f"# {name}"
    assert f"    modelbuild build recipes/{name}/recipe.toml" in lines
    assert len(lines) <= 20


@each_recipe
def test_the_scripts_know_nothing_of_modelbuild(name: str) -> None:
    for path, text in scripts(name).items():
        assert "modelbuild" not in text.lower(), path


def test_the_tabular_recipe_needs_no_torch() -> None:
    reached = set().union(*map(imports, scripts("tabular").values()))
    assert not reached & {"torch", "pickle", "joblib"}
    assert reached - set(sys.stdlib_module_names) == {"measurements", "numpy", "sklearn", "trees"}


def test_the_digits_scripts_seed_nothing_and_the_others_take_the_seed() -> None:
    assert not any("seed" in text for text in scripts("digits").values())
    for name in ("chars", "tabular"):
        assert "{seed}" in recipe_of(name).stages["train"].run


def test_each_stage_sees_only_the_code_that_it_runs() -> None:
    gpt = tuple(f"gpt/{name}.py" for name in ("__init__", "checkpoint", "model", "text"))
    expected = {
        "chars": {
            "prepare": ("prepare.py",),
            "train": (*gpt, "train.py"),
            "evaluate": ("evaluate.py", *gpt),
        },
        "digits": {
            "train": ("digits.py", "net.py", "train.py"),
            "evaluate": ("digits.py", "evaluate.py", "net.py"),
        },
        "tabular": {
            "train": ("measurements.py", "train.py", "trees.py"),
            "evaluate": ("evaluate.py", "measurements.py", "trees.py"),
        },
    }
    found = {}
    for name in NAMES:
        recipe, folder = recipe_of(name), ROOT / "recipes" / name
        files = {path: (folder / path).read_bytes() for path in recipe_code(recipe, folder)}
        found[name] = {stage: stage_code(it, files) for stage, it in recipe.stages.items()}
    assert found == expected


def test_the_levels_and_tolerances_are_declared() -> None:
    levels = {name: recipe_of(name).determinism.level for name in NAMES}
    assert levels == {
        "chars": Level.BITWISE,
        "digits": Level.BITWISE,
        "tabular": Level.FUNCTIONAL,
    }
    assert all(recipe_of(name).tolerances for name in NAMES)


def test_the_committed_lock_is_in_step_with_the_recipes(store: Store) -> None:
    assert (ROOT / "model.lock").is_file()
    ran = Tiny(ROOT).run("lock", "--check", UV_OFFLINE="1")
    assert ran.code == 0, ran.err


@pytest.mark.network
@pytest.mark.slow
def test_the_tabular_recipe_builds_and_comes_out_the_same_again(
    tmp_path: Path, store: Store
) -> None:
    workspace = Tiny(tmp_path / "workspace")
    shutil.copytree(ROOT / "recipes" / "tabular", workspace.root)
    stages = workspace.build()
    assert how(stages) == {"train": "built", "evaluate": "built"}
    assert stages["evaluate"]["metrics"]["accuracy"] > 0.95
    assert stages["evaluate"]["metrics"]["roc_auc"] > 0.98
    with np.load(Path(stages["train"]["path"]) / "trees.npz", allow_pickle=False) as trees:
        assert len(trees["roots"]) == 300

    ran = workspace.run("verify", "--rebuild", "--json")
    assert ran.code == 0, ran.err
    verified = ran.json["recipes"]["tabular"]["stages"]
    assert [stage["rebuild"] for stage in verified.values()] == ["identical", "identical"]
