"""What a verification found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.build.agreement import Agreement, Compared, breaks
from modelbuild.build.expectation import Expectation
from modelbuild.errors import (
    ModelbuildError,
    deciding_exit_code,
)
from modelbuild.spec.recipe import Determinism, Level
from modelbuild.verify.compare import TreeComparison
from modelbuild.verify.explain import Explanation
from modelbuild.verify.seeds import SeedsVerdict
from modelbuild.verify.steps import StepComparison

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebuild:
    """A second build of a stage, held against the first."""

    compared: Compared
    against: str
    """`store` or `claim`: what it was compared with."""
    same_class: bool
    first_class: str
    second_class: str
    second: Path
    comparison: TreeComparison | None
    """Where both outputs are at hand and differ."""
    expectation: Expectation | None
    """What was said beforehand; None where the first result is of the same class."""
    steps: StepComparison | None = None
    """Where both outputs are at hand and differ: where the trainings first went apart."""

    @property
    def agreement(self) -> Agreement:
        return self.compared.agreement

    def breaks(self, level: Level) -> bool:
        """Whether it fails the recipe's promise, which holds within one numeric class."""
        return self.same_class and breaks(self.compared, level)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageVerdict:
    store: str
    """`intact`, `absent` or `corrupt`."""
    claim: str
    """`holds` (identical), `within tolerance` or `different` where the level allows that, else
    `broken`; `untrue` (it says something else of its output than the output gave); `other class`,
    `missing`, or `unchecked` (no output here)."""
    rebuild: Rebuild | None = None
    explanation: Explanation | None = None
    problems: tuple[ModelbuildError, ...] = ()
    notes: tuple[str, ...] = ()
    """Of the builds that were looked at, each once: a setting that the script undid, ..."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeVerdict:
    lock: str
    """`current`, `stale` or `unchecked` (some of its data is not on this machine)."""
    absent: tuple[str, ...] = ()
    """Data tables that are not on this machine."""
    determinism: Determinism | None = None
    """What the recipe promises; None where it can't be read."""
    stages: Mapping[str, StageVerdict] = field(default_factory=dict)
    seeds: SeedsVerdict | None = None
    """None where the lock is stale."""
    problems: tuple[ModelbuildError, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    recipes: Mapping[str, RecipeVerdict]

    @property
    def problems(self) -> list[ModelbuildError]:
        """Everything that does not hold."""
        found: list[ModelbuildError] = []
        for recipe in self.recipes.values():
            found += recipe.problems
            for stage in recipe.stages.values():
                found += stage.problems
        return found

    @property
    def exit_code(self) -> int:
        return deciding_exit_code(problem.exit_code for problem in self.problems)
