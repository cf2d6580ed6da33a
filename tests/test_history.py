"""`modelbuild history`: a recipe through the commits of its lock."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from test_diff import (
    CLASS,
    PROBES,
    WHEELS,
    a_lock,
    a_recipe,
    an_environment,
    evaluate_stage,
    probed,
    train_stage,
)

from modelbuild.cli.main import main
from modelbuild.spec.lock import Lock
from modelbuild.spec.lock_file import render_lock


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def commit(lock: Lock | bytes, subject: str) -> None:
    Path("model.lock").write_bytes(lock if isinstance(lock, bytes) else render_lock(lock))
    git("add", "-A")
    git("commit", "-q", "--date", "2026-01-31T12:00:00Z", "-m", subject)


def at(accuracy: float, lr: float) -> Lock:
    """Built with this learning rate, with this result."""
    recipe = a_recipe(an_environment(*WHEELS))
    stages = {
        "evaluate": evaluate_stage(f"evaluate {lr}", accuracy=accuracy),
        "train": train_stage(f"train {lr}", loss=0.1),
    }
    return a_lock(replace(recipe, params={"lr": lr}, stages=stages))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "someone@example.com")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2026-01-31T12:00:00Z")
    monkeypatch.chdir(tmp_path)
    git("init", "-q", "-b", "main")
    commit(at(0.97, 0.001), "begin")
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: str) -> list[list[str]]:
    """The table's cells, without the commits' names."""
    assert main(["history", *words]) == 0
    rows = [
        [cell.strip() for cell in line.split("  ") if cell.strip()]
        for line in capsys.readouterr().out.splitlines()
    ]
    return [[row[0], *row[2:]] for row in rows]


def test_metrics_and_what_moved_them(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(at(0.99, 0.01), "a larger step")
    commit(at(0.91, 0.1), "too large")
    assert told(capsys, "digits") == [
        ["date", "train loss", "evaluate accuracy", "what moved"],
        ["2026-01-31", "0.1", "0.97", "added: begin"],
        ["2026-01-31", "0.1", "0.99", "params.lr: a larger step"],
        ["2026-01-31", "0.1", "0.91", "params.lr: too large"],
    ]


def test_one_metric_only(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "digits", "--metric", "accuracy")[0] == [
        "date",
        "evaluate accuracy",
        "what moved",
    ]


def test_a_metric_that_there_is_not(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "digits", "--metric", "acuracy"]) == 2
    assert capsys.readouterr().err == (
        "error: there is no metric 'acuracy'\n  found: accuracy, loss\nDid you mean: accuracy\n"
    )


def test_commits_that_leave_the_recipe_alone_are_no_steps(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = an_environment(*WHEELS)
    other = replace(at(0.97, 0.001).recipes["digits"])
    commit(a_lock(other, a_recipe(environment, "more")), "another recipe")
    assert [row[-1] for row in told(capsys, "digits")[1:]] == ["added: begin"]
    assert [row[-1] for row in told(capsys, "more")[1:]] == ["added: another recipe"]


def test_a_merge_is_one_step(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git("checkout", "-q", "-b", "branch")
    commit(at(0.98, 0.002), "first")
    commit(at(0.99, 0.003), "second")
    git("checkout", "-q", "main")
    git("merge", "-q", "--no-ff", "-m", "both", "branch")
    assert [row[-1] for row in told(capsys, "digits")[1:]] == ["added: begin", "params.lr: both"]


def test_a_lock_that_can_not_be_read_is_said_and_passed_over(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(b"<<<<<<< ours\n", "a conflict was committed")
    commit(at(0.99, 0.01), "mended")
    assert main(["history", "digits"]) == 0
    out = capsys.readouterr().out
    assert "the lock can't be read: a conflict was committed" in out
    assert "params.lr: mended" in out


def test_a_recipe_that_was_removed_still_has_its_history(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = an_environment(*WHEELS)
    commit(a_lock(a_recipe(environment, "more")), "renamed")
    assert [row[-1] for row in told(capsys, "digits")[1:]] == ["added: begin", "removed: renamed"]


def test_a_recipe_that_never_was(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "digist"]) == 2
    assert capsys.readouterr().err == (
        "error: no commit has a lock of recipe 'digist'\n  recipes in it: digits\n"
    )


def test_json_has_the_whole_difference_of_every_step(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(at(0.99, 0.01), "a larger step")
    assert main(["history", "digits", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    last = record["steps"][-1]
    assert (last["subject"], last["author"], last["date"]) == (
        "a larger step",
        "someone",
        "2026-01-31",
    )
    assert last["difference"]["params"] == {"lr": {"old": 0.001, "new": 0.01}}


def test_other_probes_of_the_same_class_are_a_step(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = replace(at(0.97, 0.001), probes=probed(PROBES).probes)
    commit(lock, "probed")
    other = replace(PROBES, digest="other", operations={**PROBES.operations, "lstm": "9b20"})
    commit(replace(lock, probes=probed(other).probes), "another machine")
    moved = f"numeric class {CLASS} gives other bits (lstm)"
    assert told(capsys, "digits")[1:] == [
        ["2026-01-31", "0.1", "0.97", "added: begin"],
        ["2026-01-31", "0.1", "0.97", f"{moved}: another machine"],
    ]
    changed = replace(at(0.99, 0.01), probes=probed(PROBES).probes)
    commit(changed, "back")
    assert told(capsys, "digits")[-1][-1] == f"params.lr, {moved}: back"
    assert main(["history", "digits", "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [[each["operations"] for each in step["probes"]] for step in steps] == [
        [],
        [["lstm"]],
        [["lstm"]],
    ]


def test_without_git_there_is_no_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    Path("model.lock").write_bytes(render_lock(a_lock()))
    assert main(["history", "digits"]) == 2
    assert "git has no history of model.lock" in capsys.readouterr().err
