"""What a build is asked for, whom it tells, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from modelbuild.build.claims import Judgement
from modelbuild.locking.lock import LockResult
from modelbuild.sandbox.isolation import Isolation
from modelbuild.sources.workspace import Workspace
from modelbuild.spec.derivation import StageId
from modelbuild.spec.digest import Digest
from modelbuild.spec.recipe import Recipe
from modelbuild.store.realisations import Realisation
from modelbuild.store.store import Store


class Observer(Protocol):
    """Who is told how a build goes on; what is told changes nothing in it."""

    def message(self, text: str) -> None: ...

    def notice(self, text: str) -> None:
        """A message that a person should still see when the build is done."""
        ...

    def stage_started(
        self, identity: StageId, index: int, count: int, last_line: Callable[[], str]
    ) -> None:
        """`last_line` tells, whenever it is asked, the last line that the stage printed."""
        ...

    def stage_finished(self, identity: StageId, realisation: Realisation) -> None: ...


class Silent:
    """An observer that is not interested."""

    def message(self, text: str) -> None:
        pass

    def notice(self, text: str) -> None:
        pass

    def stage_started(
        self, identity: StageId, index: int, count: int, last_line: Callable[[], str]
    ) -> None:
        pass

    def stage_finished(self, identity: StageId, realisation: Realisation) -> None:
        pass


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRequest:
    workspace: Workspace
    store: Store
    recipe: PurePosixPath
    """Relative to the workspace."""
    isolation: Isolation = Isolation.FULL
    locked: bool = False
    """Write nothing to the lock, and fail where it would have to be written."""
    dry_run: bool = False
    keep_failed: bool = False
    claim: bool = False
    """Add a claim for this numeric class where only other classes have one."""
    settings: Sequence[str] = ()
    """`params.lr=0.01`: an experiment, which never becomes a claim."""
    paranoid: bool = False
    """Hash data that is used in place again after each stage."""
    locations: Mapping[str, Path] = field(default_factory=dict)
    observer: Observer = field(default_factory=Silent)

    @property
    def writes_lock(self) -> bool:
        return not (self.locked or self.dry_run or self.settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResult:
    derivation: Digest
    how: str
    """`valid`, `built`, or in a dry run `would build`."""
    realisation: Realisation | None = None
    path: Path | None = None
    judgement: Judgement | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    recipe: Recipe
    locked: LockResult
    stages: Mapping[StageId, StageResult]
    """Of the recipe and of all that it builds on, in the order of building."""

    def own_stages(self) -> dict[str, StageResult]:
        return {i.stage: r for i, r in self.stages.items() if i.recipe == self.recipe.name}
