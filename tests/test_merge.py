"""Three-way merges by git, with the driver and without: no lock comes out valid and wrong."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ran, Tiny
from small_recipes import small_recipe

from modelbuild.spec.lock_file import parse_lock

OTHER = """\
[stages.run]
run = ["python", "run.py", "{out}"]
"""

BUILDS_ON = """\
[data.model]
recipe = "tiny"
stage = "train"

[stages.run]
run = ["python", "run.py", "{data.model}", "{out}"]
"""


def git(tiny: Tiny, *arguments: str) -> Ran:
    done = subprocess.run(
        ["git", *arguments], cwd=tiny.root, capture_output=True, text=True, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def repository(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """A clone with one commit: a recipe, locked. The driver is not installed yet."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "someone@example.com")
    assert git(tiny, "init", "-q", "-b", "main").code == 0
    tiny.write(".gitignore", "result-*\n")
    commit(tiny, "begin")
    return tiny


def commit(tiny: Tiny, subject: str) -> None:
    locked = tiny.run("lock")
    assert locked.code == 0, locked.err
    assert git(tiny, "add", "-A").code == 0
    done = git(tiny, "commit", "-q", "-m", subject)
    assert done.code == 0, done.err


def branches(tiny: Tiny, ours: Callable[[], object], theirs: Callable[[], object]) -> Ran:
    """Two branches from main, merged: `theirs` into `ours`."""
    git(tiny, "checkout", "-q", "-b", "theirs")
    theirs()
    commit(tiny, "theirs")
    git(tiny, "checkout", "-q", "main")
    ours()
    commit(tiny, "ours")
    return git(tiny, "merge", "--no-edit", "theirs")


def add_recipe(tiny: Tiny, name: str, tables: str = OTHER) -> None:
    tiny.write(f"{name}/recipe.toml", small_recipe(name, tables))
    tiny.write(f"{name}/run.py", f"print('{name}')\n")


def recipes(tiny: Tiny) -> list[str]:
    return list(parse_lock((tiny.root / "model.lock").read_bytes()).recipes)


def is_right(tiny: Tiny) -> bool:
    return tiny.run("lock", "--check").code == 0


def in_conflict(tiny: Tiny) -> bool:
    return "model.lock" in git(tiny, "diff", "--name-only", "--diff-filter=U").out.split()


def test_two_people_add_different_recipes(repository: Tiny) -> None:
    repository.run("git", "install")
    done = branches(
        repository,
        lambda: add_recipe(repository, "alpha"),
        lambda: add_recipe(repository, "beta"),
    )
    assert done.code == 0, done.out
    assert recipes(repository) == ["alpha", "beta", "tiny"]
    assert is_right(repository)


def test_without_the_driver_recipes_between_the_same_neighbours_are_a_conflict_that_lock_resolves(
    repository: Tiny,
) -> None:
    done = branches(
        repository,
        lambda: add_recipe(repository, "alpha"),
        lambda: add_recipe(repository, "beta"),
    )
    assert done.code == 1
    assert in_conflict(repository)
    assert repository.run("lock").code == 0
    assert recipes(repository) == ["alpha", "beta", "tiny"]
    assert is_right(repository)


@pytest.mark.parametrize("driver", [True, False])
def test_two_people_change_the_same_parameter(repository: Tiny, driver: bool) -> None:
    if driver:
        repository.run("git", "install")
    done = branches(
        repository,
        lambda: repository.replace("recipe.toml", "lr = 0.5", "lr = 0.25"),
        lambda: repository.replace("recipe.toml", "lr = 0.5", "lr = 0.75"),
    )
    assert done.code == 1
    assert in_conflict(repository)
    assert repository.run("lock", "--check").code == 3
    text = (repository.root / "recipe.toml").read_text()
    ours = text.partition("<<<<<<< HEAD\n")
    chosen = ours[0] + "lr = 0.75\n" + text.partition(">>>>>>> theirs\n")[2]
    (repository.root / "recipe.toml").write_text(chosen)
    assert repository.run("lock").code == 0
    assert is_right(repository)
    assert "lr = 0.75" in (repository.root / "model.lock").read_text()


@pytest.mark.parametrize("driver", [True, False])
def test_one_deletes_a_recipe_that_the_other_changed(repository: Tiny, driver: bool) -> None:
    add_recipe(repository, "alpha")
    commit(repository, "alpha")
    if driver:
        repository.run("git", "install")
    done = branches(
        repository,
        lambda: git(repository, "rm", "-q", "-r", "alpha"),
        lambda: repository.write("alpha/run.py", "print('changed')\n"),
    )
    assert done.code == 1
    assert in_conflict(repository)
    git(repository, "checkout", "-q", "theirs", "--", "alpha")
    assert repository.run("lock").code == 0
    assert recipes(repository) == ["alpha", "tiny"]
    assert is_right(repository)


@pytest.mark.parametrize("driver", [True, False])
def test_a_new_recipe_builds_on_a_stage_that_the_other_branch_changed(
    repository: Tiny, driver: bool
) -> None:
    """Nothing of it is in conflict by lines; its derivation is of the stage as it was."""
    if driver:
        repository.run("git", "install")
    done = branches(
        repository,
        lambda: repository.replace("recipe.toml", "lr = 0.5", "lr = 0.25"),
        lambda: add_recipe(repository, "zeta", BUILDS_ON),
    )
    checked = repository.run("lock", "--check")
    assert checked.code == 3, checked.err
    if driver:
        assert done.code == 1
        assert "recipe 'zeta': it builds on tiny:train, which the other branch changed" in done.err
        assert repository.run("lock").code == 0
        assert is_right(repository)
    else:
        assert done.code == 0
        assert "tiny:train is not as this stage was locked with: merged wrongly" in checked.err


@pytest.mark.parametrize("driver", [True, False])
def test_a_new_stage_and_a_change_of_the_code_that_it_runs(repository: Tiny, driver: bool) -> None:
    if driver:
        repository.run("git", "install")
    stage = '\n[stages.again]\nrun = ["python", "train.py", "{data.numbers}", "1", "{out}"]\n'
    recipe = repository.root / "recipe.toml"
    branches(
        repository,
        lambda: repository.replace("train.py", "training on", "now training on"),
        lambda: recipe.write_text(recipe.read_text() + stage),
    )
    assert repository.run("lock", "--check").code == 3
    assert in_conflict(repository)
    assert repository.run("lock").code == 0
    assert is_right(repository)


def test_claims_of_both_branches_stay(repository: Tiny) -> None:
    repository.run("git", "install")
    done = branches(
        repository,
        lambda: repository.build(),
        lambda: repository.write("README", "more\n"),
    )
    assert done.code == 0
    lock = parse_lock((repository.root / "model.lock").read_bytes())
    assert all(stage.current_claims for stage in lock.recipes["tiny"].stages.values())


def test_a_lock_in_conflict_already_stays_as_it_is(repository: Tiny) -> None:
    repository.run("git", "install")
    broken = "<<<<<<< ours\n"

    def breaks() -> None:
        add_recipe(repository, "alpha")
        repository.run("lock")

    git(repository, "checkout", "-q", "-b", "theirs")
    (repository.root / "model.lock").write_text(broken)
    git(repository, "commit", "-q", "-am", "broken")
    git(repository, "checkout", "-q", "main")
    breaks()
    commit(repository, "ours")
    before = (repository.root / "model.lock").read_bytes()
    done = git(repository, "merge", "--no-edit", "theirs")
    assert done.code == 1
    assert "one of the versions is no lock that can be read" in done.err
    assert (repository.root / "model.lock").read_bytes() == before


def test_git_shows_the_difference_in_a_reviewers_words(repository: Tiny) -> None:
    assert repository.run("git", "install").code == 0
    repository.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    repository.run("lock")
    shown = git(repository, "diff", "--", "model.lock").out
    assert shown.startswith("model.lock (model.lock)\ntiny\n")
    assert "lr  0.5 -> 0.25" in shown


def test_uninstall_leaves_nothing(repository: Tiny) -> None:
    attributes = repository.root / ".git" / "info" / "attributes"
    attributes.parent.mkdir(exist_ok=True)
    attributes.write_text("*.csv diff=table\n")
    repository.run("git", "install")
    repository.run("git", "install")
    assert attributes.read_text() == (
        "*.csv diff=table\nmodel.lock merge=modelbuild diff=modelbuild\n"
    )
    assert repository.run("git", "uninstall").code == 0
    assert attributes.read_text() == "*.csv diff=table\n"
    assert "modelbuild" not in git(repository, "config", "--local", "--list").out


def test_outside_of_a_repository(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tiny.root.parent))
    for action in ("install", "uninstall"):
        ran = tiny.run("git", action)
        assert ran.code == 2
        assert ran.err.startswith(f"error: there is no git repository around {tiny.root}\n")
        assert ran.err.endswith("To make one: git init\n")


def test_a_merge_of_missing_files_is_said(tiny: Tiny, tmp_path: Path) -> None:
    ran = tiny.run("git", "merge", "a")
    assert (ran.code, ran.err) == (
        2,
        "error: modelbuild git merge: 1 files are named\n  wanted: 3\n",
    )
