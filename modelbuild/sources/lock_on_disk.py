"""model.lock as a file: read part by part, written by one process at a time."""

from __future__ import annotations

import os
from collections.abc import Callable

from modelbuild.sources.workspace import LOCK_NAME, Workspace
from modelbuild.spec.lock import Lock
from modelbuild.spec.lock_conflict import agreed_lock, has_conflict
from modelbuild.spec.lock_file import open_lock, parse_lock, render_lock
from modelbuild.store.store import write_atomically


def read_lock(workspace: Workspace) -> Lock:
    """The workspace's lock, empty where there is none. Its parts are parsed when they are read."""
    data = workspace.lock_bytes()
    return open_lock(data, LOCK_NAME) if data else Lock()


def read_whole_lock(workspace: Workspace) -> Lock:
    """The same, every part of it parsed and checked."""
    data = workspace.lock_bytes()
    return parse_lock(data, LOCK_NAME) if data else Lock()


def read_agreed_lock(workspace: Workspace) -> Lock:
    """The whole lock; of one with conflict markers, what both sides agree on."""
    data = workspace.lock_bytes()
    if has_conflict(data):
        return agreed_lock(data, LOCK_NAME)
    return parse_lock(data, LOCK_NAME) if data else Lock()


def update_lock(workspace: Workspace, change: Callable[[Lock], Lock]) -> None:
    """Read the lock, change it, write it: no other process of this machine does so meanwhile."""
    import fcntl

    # The folder itself is locked: processes may have different stores, and no file is left.
    folder = os.open(workspace.root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        after = render_lock(change(read_agreed_lock(workspace)))
        if after != workspace.lock_bytes():
            write_atomically(workspace.lock_path, after)
    finally:
        os.close(folder)
