"""`modelbuild doctor`"""

from __future__ import annotations

from collections.abc import Sequence

from modelbuild.cli.arguments import Parser
from modelbuild.errors import UnavailableError
from modelbuild.sandbox.doctor import Report, examine
from modelbuild.store.store import Store


def parser() -> Parser:
    made = Parser(
        "doctor",
        "Say what this machine can do, and how to get what it can't. Exit code 8 if something\n"
        "that builds need is missing.",
        "modelbuild doctor",
    )
    made.add_argument("--json", action="store_true", help="print the findings as JSON")
    return made


def run(arguments: Sequence[str]) -> int:
    options = parser().parse(arguments)
    report = examine(Store.open().root)
    if options.json:
        import json

        print(json.dumps(to_json(report), indent=2))
    else:
        _print_report(report)
    return 0 if report.ok else UnavailableError.exit_code


def _print_report(report: Report) -> None:
    width = max(len(finding.name) for finding in report.findings)
    for finding in report.findings:
        first, *rest = finding.found.splitlines()
        print(f"{'ok' if finding.ok else '!!'}  {finding.name:<{width}}  {first}")
        for line in (*rest, *(finding.remedy or "").splitlines()):
            print(f"    {'':<{width}}  {line}")


def to_json(report: Report) -> dict[str, object]:
    """The documented record of `modelbuild doctor --json`."""
    findings = [
        {"name": f.name, "ok": f.ok, "found": f.found, "remedy": f.remedy} for f in report.findings
    ]
    return {"ok": report.ok, "findings": findings}
