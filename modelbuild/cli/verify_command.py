"""`modelbuild verify`"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.build.seed_record import Spread
from modelbuild.cli.arguments import Parser
from modelbuild.cli.compared import against_words, compared_json, compared_lines
from modelbuild.cli.comparison_text import comparison_text
from modelbuild.cli.progress import progress
from modelbuild.cli.render import level_words
from modelbuild.cli.spread import spread_json, spread_lines
from modelbuild.cli.targets import recipe_path, workspace_naming
from modelbuild.errors import UsageError
from modelbuild.sources.locations import read_locations
from modelbuild.store.store import Store
from modelbuild.verify.explained import ExplainRequest
from modelbuild.verify.seeds import SeedsVerdict
from modelbuild.verify.verdict import Rebuild, RecipeVerdict, StageVerdict, VerifyReport
from modelbuild.verify.verify import VerifyRequest, verify

if TYPE_CHECKING:
    from argparse import Namespace


def parser() -> Parser:
    made = Parser(
        "verify",
        "Check that model.lock says what recipes, code and data say, that outputs in the store\n"
        "are intact, and that they are what the lock claims. With --rebuild, build every stage\n"
        "again from scratch and compare bits.",
        "modelbuild verify --rebuild recipe.toml",
    )
    made.add_argument("recipes", nargs="*", metavar="RECIPE", help="file, folder or name")
    made.add_argument("--rebuild", action="store_true", help="build again and compare")
    made.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="build N seeds from the recipe's on; keep how metrics spread in the lock",
    )
    made.add_argument(
        "--explain",
        action="store_true",
        help="find the operation and line at which two builds went apart, and try its cause",
    )
    made.add_argument("--step", type=int, metavar="K", help="with --explain: look at this step")
    made.add_argument(
        "--save", type=Path, metavar="FILE", help="with --explain --step: keep its operations"
    )
    made.add_argument(
        "--against", type=Path, metavar="FILE", help="with --explain: compare with what was kept"
    )
    made.add_argument("--paranoid", action="store_true", help="hash data in place again")
    made.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    made.add_argument("--quiet", action="store_true", help="print errors only")
    return made


def run(arguments: Sequence[str]) -> int:
    options = parser().parse(arguments)
    workspace = workspace_naming(options.recipes[0] if options.recipes else None)
    with progress(quiet=options.quiet) as observer:
        report = verify(
            VerifyRequest(
                workspace=workspace,
                store=Store.open(),
                recipes=[recipe_path(each, workspace) for each in options.recipes],
                rebuild=options.rebuild,
                seeds=options.seeds,
                explain=_explain_request(options),
                paranoid=options.paranoid,
                locations=read_locations(os.environ),
                observer=observer,
            )
        )
    if options.json:
        import json

        print(json.dumps(to_json(report), indent=2))
    elif not options.quiet:
        for name, verdict in report.recipes.items():
            _print_verdict(name, verdict)
    for error in report.problems:
        print(f"error: {error}", file=sys.stderr)
    return report.exit_code


def _explain_request(options: Namespace) -> ExplainRequest | None:
    given = [name for name in ("step", "save", "against") if getattr(options, name) is not None]
    if not options.explain:
        if given:
            raise UsageError(f"modelbuild verify: --{given[0]} goes with --explain")
        return None
    if given in (["save"], ["save", "against"], ["step", "save", "against"], ["step", "against"]):
        raise UsageError(
            "modelbuild verify --explain: the step is that of --against FILE, or --step K for"
            " --save FILE",
            hint="modelbuild verify --help explains it.",
        )
    if options.step is not None and options.step < 1:
        raise UsageError("modelbuild verify: --step counts from 1")
    return ExplainRequest(step=options.step, save=options.save, against=options.against)


def _print_verdict(name: str, verdict: RecipeVerdict) -> None:
    level = level_words(verdict.determinism) if verdict.determinism else ""
    print(f"{name}: lock {verdict.lock}" + _absent_words(verdict) + (level and f", {level}"))
    seeds = verdict.seeds
    for note in seeds.notes if seeds else ():
        print(f"  seeds: {note}")
    width = max(map(len, verdict.stages), default=0)
    for stage, each in verdict.stages.items():
        parts = [f"  {stage:<{width}}", f"store {each.store}", f"claim {each.claim}"]
        if each.rebuild:
            parts.append(f"rebuild {against_words(each.rebuild)}")
        print("  ".join(parts))
        for line in compared_lines(each.rebuild.compared) if each.rebuild else ():
            print(f"      {line}")
        if each.rebuild and each.rebuild.steps:
            print(f"      {each.rebuild.steps.says}")
        if each.rebuild and each.rebuild.comparison:
            text = comparison_text(each.rebuild.comparison)
            print("\n".join(f"      {line}" for line in text.splitlines()))
        if each.explanation:
            print(f"      {each.explanation}")
        for note in each.notes:
            print(f"      note: {note}")
        for line in spread_lines(_spread(verdict, stage)):
            print(f"      {line}")


def _spread(verdict: RecipeVerdict, stage: str) -> Mapping[str, Spread]:
    return verdict.seeds.stages.get(stage, {}) if verdict.seeds else {}


def _absent_words(verdict: RecipeVerdict) -> str:
    if not verdict.absent:
        return ""
    return f" (not on this machine: {', '.join(verdict.absent)})"


def to_json(report: VerifyReport) -> dict[str, object]:
    """The documented record of `modelbuild verify --json`."""
    return {
        "recipes": {name: recipe_json(verdict) for name, verdict in report.recipes.items()},
        "exit_code": report.exit_code,
    }


def recipe_json(verdict: RecipeVerdict) -> dict[str, object]:
    return {
        "lock": verdict.lock,
        "level": verdict.determinism.level.value if verdict.determinism else None,
        "allow": list(verdict.determinism.allow) if verdict.determinism else [],
        "absent": list(verdict.absent),
        "problems": [str(problem) for problem in verdict.problems],
        "seeds": _seeds_json(verdict.seeds),
        "stages": {
            stage: {**_stage_json(each), "seeds": spread_json(_spread(verdict, stage))}
            for stage, each in verdict.stages.items()
        },
    }


def _seeds_json(seeds: SeedsVerdict | None) -> dict[str, object] | None:
    if seeds is None or seeds.asked is None:
        return None
    return {"asked": seeds.asked, "kept": seeds.kept, "notes": list(seeds.notes)}


def _stage_json(verdict: StageVerdict) -> dict[str, object]:
    rebuild = verdict.rebuild
    comparison = rebuild.comparison if rebuild else None
    return {
        "store": verdict.store,
        "claim": verdict.claim,
        "rebuild": str(rebuild.agreement) if rebuild else None,
        "same_class": rebuild.same_class if rebuild else None,
        "expected": rebuild.expectation.to_json() if rebuild and rebuild.expectation else None,
        **compared_json(rebuild.compared if rebuild else None),
        "first_difference": _first_difference(verdict, rebuild) if rebuild and comparison else None,
        "steps": rebuild.steps.says if rebuild and rebuild.steps else None,
        "explanation": verdict.explanation.to_json() if verdict.explanation else None,
        "comparison": comparison.to_json() if comparison else None,
        "problems": [str(problem) for problem in verdict.problems],
        "notes": list(verdict.notes),
    }


def _first_difference(verdict: StageVerdict, rebuild: Rebuild) -> dict[str, object]:
    """Where two trainings went apart, and where their outputs do; None for what is not known."""
    file = rebuild.comparison.first_difference if rebuild.comparison else None
    found = rebuild.steps.difference if rebuild.steps else None
    explained = verdict.explanation
    first = explained.first if explained else None
    return {
        "step": found.step if found else None,
        "steps": found.steps if found else None,
        "unit": found.unit if found else None,
        "process": found.process if found else None,
        "column": found.column if found else None,
        "went_first": found.went_first if found else None,
        "operation": first.operation if first else None,
        "line": first.line if first else None,
        "cause": explained.cause if explained else None,
        "confirmed": explained.confirmed if explained else None,
        "file": file.path if file else None,
        "tensor": file.tensors[0].name if file and file.tensors else None,
    }
