"""`modelbuild ci` in real clones: what a job says of a branch, and what is no failure."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Ran, Tiny, commit, git
from small_recipes import small_recipe

from modelbuild.ci.problems import Problem
from modelbuild.sources.lock_on_disk import read_lock
from modelbuild.sources.workspace import Workspace
from modelbuild.store.store import Store


def ci(tiny: Tiny, *arguments: str) -> Ran:
    return tiny.run("ci", "--base", "origin/main", "--quiet", *arguments)


def record(tiny: Tiny, *arguments: str) -> dict:
    return ci(tiny, "--json", *arguments).json


def written(tiny: Tiny, option: str, *arguments: str) -> str:
    ci(tiny, option, "written", *arguments)
    return (tiny.root / "written").read_text()


def change_lr(tiny: Tiny, *, lock: bool = True) -> None:
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    assert not lock or tiny.run("lock").code == 0


# -- the lock, and what it changes -----------------------------------------------------------------


def test_nothing_changed(branch: Tiny) -> None:
    base = git(branch.root, "rev-parse", "HEAD")
    ran = branch.run("ci", "--base", "origin/main")
    assert (ran.code, ran.out) == (
        0,
        f"model.lock is up to date\n\nno recipe differs between origin/main ({base[:10]}) and"
        " this change\n",
    )
    assert ci(branch) == Ran(0, "", "")
    assert written(branch, "--annotations") == ""
    assert json.loads(written(branch, "--code-quality")) == []


def test_a_changed_recipe_is_told_and_compared_with_where_the_branch_began(branch: Tiny) -> None:
    base = git(branch.root, "rev-parse", "HEAD")
    change_lr(branch)
    commit(branch)
    # Main has gone on; what it did there is not part of this change.
    git(branch.root, "checkout", "-q", "main")
    branch.replace("recipe.toml", "seed = 7", "seed = 8")
    branch.run("lock")
    commit(branch)
    git(branch.root, "push", "-q", "origin", "main")
    git(branch.root, "checkout", "-q", "feature")
    found = record(branch)
    assert found["commit"] == base
    assert found["difference"]["recipes"]["tiny"]["params"] == {"lr": {"old": 0.5, "new": 0.25}}
    assert found["difference"]["recipes"]["tiny"]["settings"] == {}
    markdown = written(branch, "--markdown")
    assert f"\n### Models: origin/main ({base[:10]}) → this change\n" in markdown
    assert "- `lr` 0.5 → 0.25\n" in markdown


def test_a_stale_lock_is_shown_at_the_line_that_moved(branch: Tiny) -> None:
    change_lr(branch, lock=False)
    ran = ci(branch)
    assert (ran.code, ran.out) == (
        4,
        "recipe.toml:17: model.lock is out of date: parameters: lr\n"
        "Run modelbuild lock, and commit model.lock.\n",
    )
    assert (branch.root / "recipe.toml").read_text().splitlines()[16] == "lr = 0.25"
    assert written(branch, "--annotations") == (
        "::error file=recipe.toml,line=17,title=model.lock::model.lock is out of date: parameters:"
        " lr%0ARun modelbuild lock, and commit model.lock.\n"
    )
    (found,) = json.loads(written(branch, "--code-quality"))
    assert found["location"] == {"path": "recipe.toml", "lines": {"begin": 17}}
    assert written(branch, "--markdown") == (
        "> [!WARNING]\n"
        "> **This change can't be merged as it stands.**\n"
        ">\n"
        "> - `recipe.toml:17` model.lock is out of date: parameters: lr\n"
        ">\n"
        "> Run modelbuild lock, and commit model.lock.\n"
    )


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("packages = []", 'packages = ["six"]', 6, "packages"),
        ("seed = 7", "seed = 8", 20, "seed"),
        ("lr = 0.5", "lr = 0.5\nepochs = 3", 18, "parameters: epochs"),
        ('include = ["*.py"]', 'include = ["*.py", "*.txt"]', 10, "code: numbers.txt"),
    ],
)
def test_each_kind_of_change_has_its_line(
    branch: Tiny, old: str, new: str, line: int, what: str
) -> None:
    branch.replace("recipe.toml", old, new)
    (problem,) = record(branch)["problems"]
    assert (problem["line"], problem["exit_code"]) == (line, 4)
    assert problem["message"].startswith(f"model.lock is out of date: {what}\n")


def test_changed_data_is_shown_at_its_table(branch: Tiny) -> None:
    branch.write("numbers.txt", "1\n2\n4\n")
    found = record(branch)
    assert found["exit_code"] == 5
    (problem,) = found["problems"]
    assert problem["line"] == 13
    assert problem["message"].endswith(
        "If the change is intended: modelbuild lock --update numbers"
    )


def test_one_stale_recipe_does_not_hide_another_nor_an_invalid_one(branch: Tiny) -> None:
    text = (branch.root / "recipe.toml").read_text().replace("numbers.txt", "../numbers.txt")
    for name in ("alpha", "beta"):
        branch.write(f"{name}/recipe.toml", text.replace('"tiny"', f'"{name}"'))
        for script in ("train.py", "evaluate.py"):
            shutil.copy(branch.root / script, branch.root / name)
    branch.replace("beta/recipe.toml", "schema = 1", "schema = 1\nnonsense = 2")
    change_lr(branch, lock=False)
    ran = ci(branch, "--json")
    assert ran.code == 3
    assert [(each["path"], each["line"]) for each in ran.json["problems"]] == [
        ("beta/recipe.toml", 2),
        ("alpha/recipe.toml", 1),
        ("recipe.toml", 17),
    ]


def test_a_recipe_that_is_gone_is_shown_in_the_lock(branch: Tiny) -> None:
    (branch.root / "recipe.toml").unlink()
    (problem,) = record(branch)["problems"]
    text = (branch.root / "model.lock").read_text().splitlines()
    assert problem["path"] == "model.lock"
    assert text[problem["line"] - 1].startswith("[recipes.tiny]")


def test_a_lock_in_conflict_is_shown_at_the_marker(branch: Tiny) -> None:
    change_lr(branch)
    commit(branch)
    git(branch.root, "checkout", "-q", "main")
    branch.replace("recipe.toml", "lr = 0.5", "lr = 0.125")
    branch.run("lock")
    commit(branch)
    merge = ["git", "merge", "feature"]
    assert subprocess.run(merge, cwd=branch.root, capture_output=True, check=False).returncode == 1
    branch.write("recipe.toml", git(branch.root, "show", "feature:recipe.toml") + "\n")
    git(branch.root, "add", "-A")
    git(branch.root, "commit", "-q", "-m", "markers and all")
    found = record(branch)
    (problem,) = found["problems"]
    lines = (branch.root / "model.lock").read_text().splitlines()
    assert (found["exit_code"], found["difference"], problem["path"]) == (3, None, "model.lock")
    assert lines[problem["line"] - 1].startswith("<<<<<<<")
    assert "a merge conflict is not resolved" in problem["message"]


def test_without_a_lock_on_the_base_every_recipe_is_new(built: Tiny) -> None:
    git(built.root, "checkout", "-q", "main")
    git(built.root, "rm", "-q", "--cached", "model.lock")
    git(built.root, "commit", "-q", "-m", "no lock yet")
    git(built.root, "push", "-q", "origin", "main")
    git(built.root, "checkout", "-q", "-b", "other")
    commit(built, "lock")
    found = record(built)
    assert found["exit_code"] == 0
    assert found["difference"]["recipes"]["tiny"]["kind"] == "added"


def test_a_lock_on_the_base_that_can_not_be_read_is_said(built: Tiny) -> None:
    git(built.root, "checkout", "-q", "main")
    lock = (built.root / "model.lock").read_text()
    built.write("model.lock", "<<<<<<< ours\n" + lock)
    commit(built)
    git(built.root, "push", "-q", "origin", "main")
    git(built.root, "checkout", "-q", "-b", "other")
    built.write("model.lock", lock)
    commit(built)
    ran = ci(built, "--markdown", "written")
    assert ran.code == 0
    assert "its lock can't be read: " in (built.root / "written").read_text()


def test_a_workspace_below_the_top_of_the_repository(branch: Tiny) -> None:
    team = branch.root / "team, a"
    team.mkdir()
    for name in ("recipe.toml", "train.py", "evaluate.py", "numbers.txt", "model.lock"):
        shutil.move(branch.root / name, team / name)
    below = Tiny(team)
    change_lr(below, lock=False)
    assert written(below, "--annotations").startswith(
        "::error file=team%2C a/recipe.toml,line=17,title=model.lock::"
    )
    (found,) = json.loads(written(below, "--code-quality"))
    assert found["location"]["path"] == "team, a/recipe.toml"


def test_no_text_of_a_change_is_a_command_or_markup(branch: Tiny) -> None:
    branch.replace(
        "recipe.toml", "lr = 0.5", '"a\\n::error::<img src=x> @everyone [a](b)" = 1\nlr = 0.5'
    )
    commands = written(branch, "--annotations")
    assert commands.count("\n") == commands.count("::error file=") == 1
    markdown = written(branch, "--markdown").replace("\\<img", "").replace("\\@everyone", "")
    assert "<img" not in markdown
    assert "@everyone" not in markdown
    assert "](b)" not in markdown.replace("\\](b)", "")


# -- claims ----------------------------------------------------------------------------------------

NO_CLAIM = """\
recipe.toml:22: model.lock has no claim for tiny:train, tiny:evaluate
Where it can be built: modelbuild build recipe.toml, and commit model.lock.
"""


def test_what_changed_and_was_not_built_since_has_no_claim(built: Tiny) -> None:
    change_lr(built)
    ran = ci(built)
    assert (ran.code, ran.out.partition("\n\n")[0] + "\n") == (4, NO_CLAIM)
    assert "not built since the change: its claims are stale" in ran.out
    assert "up to date" not in ran.out
    assert (built.root / "recipe.toml").read_text().splitlines()[21] == "[stages.train]"
    assert written(built, "--annotations").startswith("::error file=recipe.toml,line=22,")
    assert record(built, "--build", "all")["exit_code"] == 4
    built.build()
    assert ci(built) == Ran(0, "", "")


def test_a_claim_that_was_missing_before_is_not_of_this_change(branch: Tiny) -> None:
    assert branch.run("ci", "--base", "origin/main").code == 0
    ran = branch.run("ci")
    assert (ran.code, ran.out) == (4, NO_CLAIM)


def test_a_claim_that_is_taken_away_is_missing(built: Tiny) -> None:
    lock = (built.root / "model.lock").read_text()
    head, table, rest = lock.partition("[recipes.tiny.stages.evaluate.claims]\n")
    assert table
    built.write("model.lock", head + rest.partition("\n\n")[2])
    ran = ci(built)
    assert ran.code == 4
    assert ran.out.startswith("recipe.toml:26: model.lock has no claim for tiny:evaluate\n")


# -- folders without models ------------------------------------------------------------------------


def nothing(folder: Path) -> str:
    return (
        "error: there is nothing to check: no recipe is in this workspace, and none is locked\n"
        f"  workspace: {folder}\n"
        "  wanted:    model.lock in it, or a recipe.toml in it or below\n"
        "Run it in the folder of model.lock, of a commit that has it.\n"
    )


def test_a_folder_without_models_is_not_green(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = Tiny(tmp_path / "empty").run("ci")
    assert ran == Ran(2, "", nothing(tmp_path / "empty"))


def test_a_commit_without_models_is_not_green(branch: Tiny) -> None:
    git(branch.root, "checkout", "-q", "main")
    git(branch.root, "rm", "-q", "-r", ".")
    branch.write("README.md", "no models here\n")
    commit(branch)
    ran = branch.run("ci", "--base", "main")
    assert ran == Ran(2, "", nothing(branch.root))


def test_a_change_that_removes_every_model_shows_that(branch: Tiny) -> None:
    git(branch.root, "rm", "-q", "recipe.toml", "model.lock")
    ran = branch.run("ci", "--base", "origin/main", "--json")
    assert ran.code == 0
    assert ran.json["difference"]["recipes"]["tiny"]["kind"] == "removed"
    assert branch.run("ci").code == 2


def test_a_scope_that_there_is_not_is_told_the_words(branch: Tiny) -> None:
    ran = branch.run("ci", "--build", "some")
    assert ran.code == 2
    assert ran.err.startswith(
        "error: modelbuild ci: argument --build: invalid choice: 'some' (choose from "
    )
    assert "Scope" not in ran.err
    assert [word in ran.err for word in ("none", "changed", "all")] == [True] * 3


# -- clones that lack history ----------------------------------------------------------------------


@pytest.fixture
def pushed(branch: Tiny) -> Tiny:
    """The branch, pushed with 3 commits of its own, a parameter changed in the last."""
    for number in range(2):
        branch.write("notes.md", f"{number}\n")
        commit(branch, f"notes {number}")
    change_lr(branch)
    commit(branch)
    git(branch.root, "push", "-q", "origin", "feature")
    return branch


def shallow(branch: Tiny, tmp_path: Path) -> Tiny:
    """As hosting sites check out: one commit of one branch."""
    origin = f"file://{tmp_path}/origin.git"
    git(tmp_path, "clone", "-q", "--depth=1", "--branch=feature", origin, "shallow")
    return Tiny(tmp_path / "shallow")


def test_what_a_shallow_clone_lacks_is_fetched(pushed: Tiny, tmp_path: Path) -> None:
    clone = shallow(pushed, tmp_path)
    assert git(clone.root, "rev-list", "--count", "HEAD") == "1"
    head = git(clone.root, "rev-parse", "HEAD")
    found = record(clone)
    assert found["exit_code"] == 4  # nobody built it
    assert found["commit"] == git(pushed.root, "rev-parse", "main")
    assert list(found["difference"]["recipes"]) == ["tiny"]
    assert git(clone.root, "rev-parse", "HEAD") == head
    assert git(clone.root, "status", "--porcelain") == ""


def test_a_base_that_is_a_commit_is_fetched_too(pushed: Tiny, tmp_path: Path) -> None:
    clone = shallow(pushed, tmp_path)
    base = git(pushed.root, "rev-parse", "main")
    ran = clone.run("ci", "--base", base, "--json")
    assert ran.json["commit"] == base


def test_where_nothing_can_be_fetched_it_is_said_what_to_set(pushed: Tiny, tmp_path: Path) -> None:
    clone = shallow(pushed, tmp_path)
    shutil.move(tmp_path / "origin.git", tmp_path / "gone.git")
    ran = clone.run("ci", "--base", "origin/main")
    assert ran.code == 2
    first, _, last = ran.err.partition("\n  git: ")
    assert first == "error: the commit at which this branch left 'origin/main' is not in this clone"
    assert last.splitlines()[-1] == (
        "Check out the whole history: fetch-depth: 0 (GitHub), GIT_DEPTH: 0 (GitLab), git fetch"
        " --unshallow"
    )


@pytest.mark.parametrize("base", ["nosuch", "origin/mian"])
def test_a_misspelt_base_is_no_matter_of_history(branch: Tiny, base: str) -> None:
    ran = branch.run("ci", "--base", base)
    assert ran.code == 2
    assert ran.err.startswith(f"error: there is no git revision '{base}'\n  branches: ")
    assert "fetch-depth" not in ran.err
    assert ran.err.endswith("Did you mean: --base origin/main\n") == (base == "origin/mian")


def test_a_base_with_another_history_is_said(branch: Tiny) -> None:
    git(branch.root, "checkout", "-q", "--orphan", "other")
    commit(branch)
    ran = branch.run("ci", "--base", "main")
    assert (ran.code, ran.err) == (2, "error: HEAD and 'main' have no commit in common\n")


def test_a_base_outside_of_git_is_said(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tiny.root.parent))
    ran = tiny.run("ci", "--base", "main")
    assert ran.code == 2
    assert ran.err.startswith(f"error: there is no git repository around {tiny.root}\n")
    assert "fetch-depth" not in ran.err


def test_a_base_that_looks_like_an_option_is_none(branch: Tiny) -> None:
    ran = branch.run("ci", "--base=--upload-pack=touch spoilt")
    assert ran.code == 2
    assert not (branch.root / "spoilt").exists()


# -- builds ----------------------------------------------------------------------------------------


def test_only_what_changed_is_built(built: Tiny) -> None:
    assert record(built, "--build", "changed")["built"] == {}
    change_lr(built)
    built.build()
    found = record(built, "--build", "changed")
    assert found["exit_code"] == 0
    assert found["built"]["tiny"]["stages"]["train"]["claim"] == "identical"
    assert record(built, "--build", "all")["built"].keys() == {"tiny"}


def test_a_change_that_nobody_has_built_has_no_claim(built: Tiny) -> None:
    change_lr(built)
    ran = ci(built, "--build", "changed")
    assert ran.code == 4
    assert ran.out.startswith("tiny: model.lock has no claim for what was built\n")
    assert "\n  stages: tiny:train, tiny:evaluate\n" in ran.out


def test_a_claim_is_verified_by_building_again(built: Tiny) -> None:
    assert "| tiny:train | built again, identical to the output in the store |\n" in written(
        built, "--markdown", "--verify", "all"
    )


def test_a_training_that_does_not_reproduce_fails_and_is_shown(built: Tiny, tmp_path: Path) -> None:
    built.replace("train.py", "random.random()", "__import__('time').time_ns()")
    built.build()
    shutil.rmtree(tmp_path / "store" / "realisations")
    ran = ci(built, "--verify", "changed", "--markdown", "written", "--json")
    assert ran.code == 7
    assert any("not reproducible" in each["message"] for each in ran.json["problems"])
    assert (
        "> [!CAUTION]\n> **tiny** tiny:train is not reproducible"
        in (built.root / "written").read_text()
    )


def claimed_elsewhere(tiny: Tiny) -> None:
    """As another machine would: the lock claims of its stages as they are what it did before."""
    lock = read_lock(Workspace(tiny.root))
    text = (tiny.root / "model.lock").read_text()
    for stage in lock.recipes["tiny"].stages.values():
        for claim in stage.claims:
            text = text.replace(str(claim.derivation), str(stage.derivation))
    (tiny.root / "model.lock").write_text(text)


def test_hardware_that_the_runner_lacks_is_no_failure(built: Tiny) -> None:
    built.replace(
        "recipe.toml",
        "[determinism]",
        '[hardware]\ndevice = "cuda"\ngpu = "No Such GPU"\n\n[determinism]',
    )
    assert built.run("lock").code == 0
    unbuilt = ci(built, "--build", "changed", "--json")
    assert [each["exit_code"] for each in unbuilt.json["problems"]] == [4]
    claimed_elsewhere(built)
    ran = ci(built, "--build", "changed", "--markdown", "written", "--json")
    assert ran.code == 0, ran.out
    assert ran.json["problems"] == []
    assert "#### Not checked here\n\n- tiny: " in (built.root / "written").read_text()
    assert "GPU" in ran.json["unchecked"]["tiny"]


def test_data_that_is_elsewhere_is_no_failure(branch: Tiny) -> None:
    branch.replace(
        "recipe.toml", 'path = "numbers.txt"', 'location = "shared"\nfile = "numbers.txt"'
    )
    environment = {"MODELBUILD_LOCATION_SHARED": str(branch.root)}
    locked = branch.run("lock", **environment)
    assert locked.code == 0, locked.err
    ran = ci(branch, "--build", "changed", "--json")
    assert ran.code == 0, ran.out
    assert ran.json["problems"] == []
    assert "numbers" in ran.json["unchecked"]["tiny"]


def test_what_could_not_be_read_keeps_nothing_else_from_being_built(built: Tiny) -> None:
    built.write("broken/recipe.toml", "schema = 1\n")
    found = record(built, "--build", "all")
    assert found["exit_code"] == 3
    assert found["built"].keys() == {"tiny"}


def test_a_problem_is_said_once(branch: Tiny) -> None:
    """The recipe that builds on another lacks what that one lacks."""
    branch.write(
        "more/recipe.toml",
        small_recipe(
            "more",
            '[data.model]\nrecipe = "tiny"',
            '[stages.run]\nrun = ["python", "run.py", "{data.model}", "{out}"]',
        ),
    )
    branch.write("more/run.py", "import sys\n")
    assert branch.run("lock").code == 0
    branch.write("numbers.txt", "1\n2\n4\n")
    problems = record(branch)["problems"]
    assert [(each["path"], each["line"]) for each in problems] == [("recipe.toml", 13)]


def test_a_problem_names_its_place_once() -> None:
    from modelbuild.errors import InvalidInputError

    problem = Problem.of(InvalidInputError("a/recipe.toml:3: wrong"), "b/recipe.toml", 1)
    assert (problem.path, problem.line, problem.summary) == ("a/recipe.toml", 3, "wrong")
