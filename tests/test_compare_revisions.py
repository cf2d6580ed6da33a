"""`modelbuild compare` of git revisions: from two locks alone, paired where both have the seeds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Tiny, commit, git
from test_diff import CLASS, WHEELS, a_lock, a_recipe, an_environment, evaluate_stage, train_stage

from modelbuild.cli.main import main
from modelbuild.spec.lock import Lock, LockedSeeds, LockedStage
from modelbuild.spec.lock_file import render_lock
from modelbuild.spec.seed_statistics import summarise

BEFORE = (0.95, 0.96, 0.97, 0.94, 0.955)
AFTER = (0.961, 0.97, 0.981, 0.952, 0.964)


def on_record(stage: LockedStage, values: tuple[float, ...], *, kept: bool = True) -> LockedStage:
    seeds = LockedSeeds(
        derivation=stage.derivation,
        numeric_class=CLASS,
        statistics=summarise(values).rounded(),
        values=values if kept else (),
    )
    return replace(stage, seeds={"accuracy": seeds})


def a_side(
    lr: float,
    values: tuple[float, ...] = (),
    *,
    kept: bool = True,
    seed: int = 42,
    built: bool = True,
) -> Lock:
    """The lock of one revision: accuracy is that of the first seed."""
    metrics = {"accuracy": values[0] if values else 0.9 + lr} if built else {}
    evaluate = evaluate_stage(f"evaluate {lr}", f"train {lr}", **metrics)
    if values:
        evaluate = on_record(evaluate, values, kept=kept)
    stages = {"evaluate": evaluate, "train": train_stage(f"train {lr}", loss=0.1)}
    recipe = replace(a_recipe(an_environment(*WHEELS)), params={"lr": lr}, stages=stages, seed=seed)
    return a_lock(recipe)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two branches: put locks on them with `on`."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "someone@example.com")
    monkeypatch.setenv("MODELBUILD_STORE", str(tmp_path / "store"))
    folder = tmp_path / "workspace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "begin")
    return folder


def on(branch: str, lock: Lock, folder: Path) -> str:
    """The commit."""
    git(folder, "checkout", "-q", "-B", branch)
    (folder / "model.lock").write_bytes(render_lock(lock))
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", branch)
    return git(folder, "rev-parse", "HEAD")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["compare", *words]) == 0
    return capsys.readouterr().out.splitlines()


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["compare", *words]) == 2
    return capsys.readouterr().err


def test_the_same_seeds_of_two_revisions_are_paired(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main_commit = on("main", a_side(0.001, BEFORE), repository)
    feature = on("feature", a_side(0.002, AFTER), repository)
    lines = said(capsys, "main", "feature")
    assert lines == [
        f"A: main (git revision {main_commit[:10]})",
        f"B: feature (git revision {feature[:10]})",
        "digits",
        "  accuracy: B is higher by 0.0106 (95 % CI 0.0092 to 0.0120; 5 seeds; p below 0.0001):"
        " larger than seed noise",
        "      A: mean 0.955, deviation 0.011, 95 % CI 0.941 to 0.969 (5 seeds: 0.940 to 0.970)",
        "      B: mean 0.966, deviation 0.011, 95 % CI 0.952 to 0.979 (5 seeds: 0.952 to 0.981)",
        "      seed by seed: B higher 5, equal 0, lower 0",
        "  loss: A 0.1, B 0.1: no difference",
    ]
    assert said(capsys, "main", "feature", "digits", "--metric", "accuracy") == lines[:-1]
    assert main(["compare", "main", "feature", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["first"] == {"revision": "main", "commit": main_commit}
    accuracy = record["recipes"]["digits"]["metrics"]["accuracy"]
    assert (accuracy["verdict"], accuracy["higher"]) == ("larger than seed noise", 5)
    assert accuracy["difference"] == pytest.approx(0.0106)


def test_seeds_of_other_numbers_are_paired_where_they_meet(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on("main", a_side(0.001, BEFORE, seed=42), repository)
    on("feature", a_side(0.002, AFTER, seed=44), repository)
    (metric,) = (line for line in said(capsys, "main", "feature") if "accuracy" in line)
    assert "; 3 seeds; " in metric
    on("far", a_side(0.002, AFTER, seed=90), repository)
    lines = said(capsys, "main", "far", "--metric", "accuracy")
    assert lines[3] == ("  accuracy: A 0.95, B 0.961: B is higher by 0.011: within seed noise")
    assert "  note: A has the seeds 42 to 46, B 90 to 94: nothing is paired" in lines


def test_what_a_lock_does_not_have_is_said_with_what_to_run(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on("main", a_side(0.001, BEFORE, kept=False), repository)
    on("feature", a_side(0.002), repository)
    on("unbuilt", a_side(0.003, built=False), repository)
    assert said(capsys, "main", "feature", "--metric", "accuracy")[3:] == [
        "  accuracy: A 0.95, B 0.902: B is lower by 0.048: larger than seed noise",
        "      A: mean 0.955, deviation 0.011, 95 % CI 0.941 to 0.969 (5 seeds: 0.940 to 0.970)",
        "  note: A (main) has the spread over its seeds, but not their values, so they can't be"
        " paired. At main run: modelbuild verify digits --seeds 5, then commit model.lock",
        "  note: B (feature) has no seeds on record. At feature run: modelbuild verify digits"
        " --seeds 5, then commit model.lock",
    ]
    notes = said(capsys, "feature", "unbuilt")
    assert (
        "  note: B (unbuilt) has no claim of evaluate. At unbuilt run: modelbuild build digits,"
        " then commit model.lock" in notes
    )
    assert "  note: accuracy: only A has it" in notes


def test_one_revision_is_compared_with_the_working_tree(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on("main", a_side(0.001, BEFORE), repository)
    (repository / "model.lock").write_bytes(render_lock(a_side(0.002, AFTER)))
    lines = said(capsys, "main")
    assert lines[1] == "B: working tree"
    assert "larger than seed noise" in lines[3]
    (repository / "model.lock").write_bytes(render_lock(a_side(0.002)))
    assert (
        "  note: B (working tree) has no seeds on record. In the working tree run:"
        " modelbuild verify digits --seeds 5, then commit model.lock"
    ) in said(capsys, "main")


def test_recipes_that_are_the_same_or_on_one_side_only_are_named(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    side = a_side(0.001, BEFORE)
    more = replace(side.recipes["digits"], name="more", path=Path("more/recipe.toml"))
    stages = {"train": replace(train_stage(), upstream={})}
    new = replace(more, stages=stages)
    on("main", side, repository)
    on("feature", replace(side, recipes={**side.recipes, "more": new}), repository)
    assert said(capsys, "main", "feature")[2:] == [
        "unchanged: digits",
        "note: more: only B has this recipe",
    ]
    assert said(capsys, "main", "feature", "digits")[-1] == (
        "  note: every stage is made from the same inputs in both"
    )
    assert refused(capsys, "main", "feature", "more") == (
        "error: model.lock at main has no recipe 'more'\n  recipes in it: digits\n"
    )


def test_a_name_that_is_a_recipe_and_a_branch_is_not_guessed(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on("main", a_side(0.001, BEFORE), repository)
    commit_ = on("digits", a_side(0.002, AFTER), repository)
    assert refused(capsys, "digits") == (
        "error: modelbuild compare: digits could be of several kinds\n"
        f"  digits: recipe digits/recipe.toml or git revision {commit_[:10]}\n"
        "Name a recipe by its file, a run by 'b3:' and its id, a revision with '^0' behind it\n"
        "(it is the same commit).\n"
    )
    assert said(capsys, "main", "digits")[1] == f"B: digits (git revision {commit_[:10]})"
    assert said(capsys, "main", "digits^0")[1] == f"B: digits^0 (git revision {commit_[:10]})"
    assert "digits could be of several kinds" in refused(capsys, "digits", "digits")


def test_words_of_two_kinds_are_refused(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit_ = on("main", a_side(0.001, BEFORE), repository)
    on("feature", a_side(0.002, AFTER), repository)
    assert refused(capsys, "main", "digits").startswith(
        "error: modelbuild compare: main and digits are not of one kind\n"
        f"  main:   git revision {commit_[:10]}\n"
        "  digits: recipe digits/recipe.toml\n"
        "Compare two recipes, two runs or two revisions.\n"
    )
    assert refused(capsys, "main", "HEAD", "digits", "--seeds", "5") == (
        "error: modelbuild compare: --seeds goes with recipes; of revisions nothing is built\n"
    )
    assert refused(capsys, "main", "nowhere", "digits").startswith(
        "error: there is no git revision 'nowhere'\n"
    )
    for words in (("main", "nowhere"), ("nowhere",), ("digits", "nowhere")):
        assert refused(capsys, *words).startswith(
            "error: there is no recipe, no run and no git revision 'nowhere'\n"
        )
    assert refused(capsys, "main", "HEAD", "--seeds", "3").startswith(
        "error: modelbuild compare: --seeds goes with recipes; 'main' is a git revision, of which"
        " nothing is built\n"
    )
    assert refused(capsys, "main", "HEAD", "--metric", "f1") == (
        "error: there is no metric 'f1' in both revisions\n  found: accuracy, loss\n"
    )


def test_a_revision_without_a_lock_has_no_recipe(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on("feature", a_side(0.001, BEFORE), repository)
    assert refused(capsys, "main", "feature") == (
        "error: no recipe is in model.lock at both main and feature\n"
        "  main:    none\n"
        "  feature: digits\n"
    )


def test_what_verify_keeps_of_seeds_is_what_compare_pairs(branch: Tiny) -> None:
    """From real builds on two branches: the loss is the learning rate times a random number."""
    branch.build()
    branch.run("verify", "--seeds", "3")
    commit(branch, "measured")
    git(branch.root, "checkout", "-q", "-b", "faster")
    branch.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    branch.build()
    branch.run("verify", "--seeds", "3")
    commit(branch, "faster")
    ran = branch.run("compare", "feature", "faster", "tiny", "--json")
    assert ran.code == 0, ran.err
    loss = ran.json["recipes"]["tiny"]["metrics"]["loss"]
    assert loss["lower"] == 3
    assert loss["second"] == pytest.approx(loss["first"] / 2)
