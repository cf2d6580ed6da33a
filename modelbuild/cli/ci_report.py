"""The report of `modelbuild ci`, in a terminal and as the comment of a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelbuild.ci.check import CheckReport, Trial
from modelbuild.ci.problems import Problem
from modelbuild.cli.diff_markdown import code, diff_markdown, plain
from modelbuild.cli.diff_text import diff_text
from modelbuild.cli.render import agreement_words
from modelbuild.errors import ModelbuildError
from modelbuild.review.difference import LockDifference

_THIS = "this change"


def report_text(report: CheckReport) -> str:
    blocks = [str(_as_error(each)) for each in report.check.problems]
    blocks += [f"{trial.recipe.name}: {each}" for trial in report.trials for each in trial.failures]
    if not blocks and report.check.lock:
        blocks.append("model.lock is up to date")
    if difference := _difference(report):
        blocks.append(diff_text(difference, _base(report), _THIS))
    blocks += [
        "\n".join(f"{name}  {words}" for name, words in _results(trial)) for trial in report.trials
    ]
    blocks += [f"not checked: {name}: {words}" for name, words in _unchecked(report)]
    return "\n\n".join(block for block in blocks if block)


def report_markdown(report: CheckReport) -> str:
    """What does not hold comes first, then what changed, then what was built."""
    lines = [*_problems(report.check.problems), *_failures(report.trials)]
    if difference := _difference(report):
        lines += [diff_markdown(difference, _base(report), _THIS), ""]
    elif not report.check.problems:
        lines += ["### Models", "", "`model.lock` is up to date.", ""]
    results = [row for trial in report.trials for row in _results(trial)]
    if results:
        lines += ["#### Built", "", "| stage | result |", "|---|---|"]
        lines += [f"| {plain(name)} | {plain(words)} |" for name, words in results]
        lines.append("")
    unchecked = list(_unchecked(report))
    if unchecked:
        lines += ["#### Not checked here", ""]
        lines += [f"- {plain(name)}: {plain(words)}" for name, words in unchecked]
    return "\n".join(lines).rstrip("\n") + "\n"


def _difference(report: CheckReport) -> LockDifference | None:
    """That nothing differs is worth saying only of a lock that is current."""
    found = report.difference
    changed = found and (found.recipes or found.probes)
    return found if changed or not report.check.problems else None


def _base(report: CheckReport) -> str:
    return f"{report.base} ({(report.commit or '')[:10]})"


def _as_error(problem: Problem) -> ModelbuildError:
    summary = f"{problem.path}:{problem.line}: {problem.summary}"
    return ModelbuildError(summary, facts=problem.facts, hint=problem.hint)


def _problems(problems: Sequence[Problem]) -> Iterator[str]:
    if not problems:
        return
    yield from ("> [!WARNING]", "> **This change can't be merged as it stands.**", ">")
    for each in problems:
        yield f"> - {code(f'{each.path}:{each.line}')} {plain(each.summary)}"
        yield from (f">   - {plain(label)}: {plain(value)}" for label, value in each.facts)
    hints = dict.fromkeys(each.hint for each in problems if each.hint)
    if hints:
        yield ">"
        yield from (f"> {plain(hint)}" for hint in hints)
    yield ""


def _failures(trials: Sequence[Trial]) -> Iterator[str]:
    for trial in trials:
        for error in trial.failures:
            yield "> [!CAUTION]"
            yield f"> **{plain(trial.recipe.name)}** {plain(error.summary)}"
            yield from (f"> - {plain(label)}: {plain(value)}" for label, value in error.facts)
            yield ""


def _results(trial: Trial) -> Iterator[tuple[str, str]]:
    """Stage and what came out, against what the lock claims."""
    name = trial.recipe.name
    for stage, result in trial.built.own_stages().items() if trial.built else ():
        judgement = result.judgement
        words = result.how
        if judgement and judgement.agreement:
            claim = "the claim" if judgement.same_class else "the claim of another class"
            words += f", {agreement_words(judgement.agreement, claim)}"
        yield f"{name}:{stage}", words
    for stage, verdict in trial.verdict.stages.items() if trial.verdict else ():
        again = verdict.rebuild
        if again:
            first = "the claim" if again.against == "claim" else "the output in the store"
            first += "" if again.same_class else ", made on another class"
            yield f"{name}:{stage}", f"built again, {agreement_words(again.agreement, first)}"


def _unchecked(report: CheckReport) -> Iterator[tuple[str, str]]:
    yield from report.check.unchecked.items()
    for trial in report.trials:
        yield from ((trial.recipe.name, each.summary) for each in trial.lacking)
    if report.unreadable:
        yield _base(report), f"its lock can't be read: {report.unreadable.summary}"
