"""What locking is asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelbuild.errors import OutOfDateError
from modelbuild.sources.workspace import Workspace
from modelbuild.store.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class LockRequest:
    workspace: Workspace
    store: Store
    update: Collection[str] | None = None
    """Names of packages and data tables, `python`, `runtime`; empty: everything; None: nothing."""
    check: bool = False
    """Resolve and fetch nothing: what would need it is out of date."""
    recheck: bool = False
    """Look up locked packages on the index, to see that their files are what they were."""
    paranoid: bool = False
    """Hash data that is used in place even where its stat signature says it is unchanged."""
    locations: Mapping[str, Path] = field(default_factory=dict)
    on_message: Callable[[str], None] = lambda _: None

    def updates(self, name: str) -> bool:
        return self.update is not None and (not self.update or name in self.update)


def out_of_date(facts: Sequence[tuple[str, str]]) -> OutOfDateError:
    """The lock is not what it should be; `facts` say which recipes, and what of them."""
    return OutOfDateError(
        "model.lock is out of date", facts=facts, hint="To bring it up to date: modelbuild lock"
    )
