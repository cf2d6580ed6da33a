"""model.lock as a file: read through a cache, written by one process at a time."""

from __future__ import annotations

from collections.abc import Callable

from modelbuild.sources.workspace import LOCK_NAME, Workspace
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import Lock
from modelbuild.spec.lock_file import parse_lock, render_lock
from modelbuild.store.store import Store, write_atomically


def read_lock(workspace: Workspace) -> Lock:
    """The workspace's lock, empty where there is none."""
    data = workspace.lock_bytes()
    return parse_lock(data, LOCK_NAME) if data else Lock()


def update_lock(workspace: Workspace, store: Store, change: Callable[[Lock], Lock]) -> None:
    """Read the lock, change it, write it: no other process of this machine does so meanwhile."""
    key = f"workspace-{Digest.of(str(workspace.root).encode()).store_key}"
    with store.lock(key, lambda _: None):
        before = workspace.lock_bytes()
        after = render_lock(change(parse_lock(before, LOCK_NAME) if before else Lock()))
        if after != before:
            write_atomically(workspace.lock_path, after)
