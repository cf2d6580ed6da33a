"""`modelbuild ci`"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from modelbuild.ci.check import CheckRequest, Scope, check
from modelbuild.cli.arguments import Parser
from modelbuild.cli.progress import progress
from modelbuild.cli.targets import workspace_of
from modelbuild.sources.locations import read_locations
from modelbuild.store.store import Store


def parser() -> Parser:
    made = Parser(
        "ci",
        "Check a change as a job of continuous integration does: that model.lock is current, what\n"
        "it changes since this branch left another, and, if asked, that this machine can build\n"
        "it. What this machine lacks is listed, and is no failure.",
        "modelbuild ci --base origin/main --markdown models.md",
    )
    made.add_argument("--base", metavar="REVISION", help="what the change is to be merged into")
    scopes = [each.value for each in Scope]
    for option, words in (("build", "build"), ("verify", "build again from scratch and compare")):
        made.add_argument(
            f"--{option}", choices=scopes, default=Scope.NONE.value, help=f"recipes to {words}"
        )
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the report to FILE")
    made.add_argument(
        "--annotations", type=Path, metavar="FILE", help="write problems as GitHub's annotations"
    )
    made.add_argument(
        "--code-quality", type=Path, metavar="FILE", help="write problems as GitLab's report"
    )
    made.add_argument("--json", action="store_true", help="print the report as JSON")
    made.add_argument("--quiet", action="store_true", help="print errors only")
    return made


def run(arguments: Sequence[str]) -> int:
    options = parser().parse(arguments)
    workspace = workspace_of(None)
    with progress(quiet=options.quiet) as observer:
        report = check(
            CheckRequest(
                workspace=workspace,
                store=Store.open(),
                base=options.base,
                build=Scope(options.build),
                verify=Scope(options.verify),
                locations=read_locations(os.environ),
                observer=observer,
            )
        )
    from modelbuild.cli.ci_formats import code_quality, to_json, workflow_commands
    from modelbuild.cli.ci_report import report_markdown, report_text

    if options.markdown:
        options.markdown.write_text(report_markdown(report))
    if options.annotations:
        options.annotations.write_text(workflow_commands(report, workspace))
    if options.code_quality:
        options.code_quality.write_text(code_quality(report, workspace))
    if options.json:
        print(to_json(report))
    elif not options.quiet or report.exit_code:
        print(report_text(report))
    return report.exit_code
