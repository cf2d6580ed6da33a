"""What does not hold, in the formats that hosting sites show beside the lines of a change."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Iterator

from modelbuild.ci.check import CheckReport, Trial
from modelbuild.ci.problems import Problem
from modelbuild.cli.build_result import to_json as build_json
from modelbuild.cli.diff_json import to_json as difference_json
from modelbuild.cli.verify_command import recipe_json
from modelbuild.review.revisions import git
from modelbuild.sources.workspace import Workspace


def workflow_commands(report: CheckReport, workspace: Workspace) -> str:
    """Workflow commands of GitHub Actions, a line each, to be printed by a step.

    Escaped as the runner's own toolkit does it, so that no text of a change is a command.
    https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts
    """
    top = _below_repository(workspace)
    lines = []
    for problem in _all(report):
        place = f"file={_property(top + problem.path)},line={problem.line},title=model.lock"
        lines.append(f"::error {place}::{_message(_words(problem))}\n")
    return "".join(lines)


def code_quality(report: CheckReport, workspace: Workspace) -> str:
    """GitLab's code quality report.

    https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
    """
    top = _below_repository(workspace)
    found = []
    for problem in _all(report):
        path = posixpath.normpath(top + problem.path)
        identity = "\0".join([path, str(problem.exit_code), problem.summary])
        found.append(
            {
                "description": _words(problem),
                "check_name": "modelbuild",
                "fingerprint": hashlib.sha256(identity.encode()).hexdigest(),
                "severity": "major",
                "location": {"path": path, "lines": {"begin": problem.line}},
            }
        )
    return json.dumps(found, indent=2) + "\n"


def to_json(report: CheckReport) -> str:
    """The documented record of `modelbuild ci --json`."""
    record = {
        "base": report.base,
        "commit": report.commit,
        "problems": [
            {
                "path": each.path,
                "line": each.line,
                "exit_code": each.exit_code,
                "message": _words(each),
            }
            for each in _all(report)
        ],
        "unchecked": {
            **report.check.unchecked,
            **{t.recipe.name: str(each) for t in report.trials for each in t.lacking},
        },
        "difference": difference_json(report.difference) if report.difference else None,
        "built": {t.recipe.name: build_json(t.built) for t in report.trials if t.built},
        "verified": {t.recipe.name: recipe_json(t.verdict) for t in report.trials if t.verdict},
        "exit_code": report.exit_code,
    }
    return json.dumps(record, indent=2)


def _all(report: CheckReport) -> list[Problem]:
    return [*report.check.problems, *(p for trial in report.trials for p in _failed(trial))]


def _failed(trial: Trial) -> Iterator[Problem]:
    path, lines = str(trial.recipe.path), trial.recipe.lines
    yield from (Problem.of(each, path, lines.get("stages", 1)) for each in trial.failures)


def _words(problem: Problem) -> str:
    facts = [f"{label}: {value}" for label, value in problem.facts]
    return "\n".join([problem.summary, *facts, *([problem.hint] if problem.hint else [])])


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def _below_repository(workspace: Workspace) -> str:
    """`models/`: hosting sites name files from the top of the repository."""
    code, found, _ = git(["rev-parse", "--show-prefix"], workspace)
    return found.decode().rstrip("\n") if code == 0 else ""
