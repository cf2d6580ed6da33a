"""Copy an output to a folder that can be written."""

from __future__ import annotations

import os
from pathlib import Path

from modelbuild.build.outputs import Lookup, find_output
from modelbuild.errors import ModelbuildError
from modelbuild.store.copies import copy_tree
from modelbuild.store.store import remove_tree


def export_folder(lookup: Lookup, target: Path) -> Path:
    """Copy the output of a stage to `target`, which must not exist or be empty."""
    target = Path(os.path.abspath(target))
    identity, realisation = find_output(lookup)
    if realisation is None:
        raise ModelbuildError(
            f"{identity} is not built", hint="To build it: modelbuild build " + str(lookup.recipe)
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ModelbuildError(
            f"{target} is there already",
            facts=[("wanted", "a new or an empty folder")],
            hint="Name another folder, or remove this one.",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    copy = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        copy_tree(realisation.path(lookup.store), copy)
        make_writable(copy)
        if target.exists():
            target.rmdir()
        copy.rename(target)
    finally:
        remove_tree(copy)
    return target


def make_writable(folder: Path) -> None:
    for parent, _, files in os.walk(folder):
        os.chmod(parent, os.stat(parent).st_mode | 0o200)
        for name in files:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chmod(path, os.stat(path).st_mode | 0o200)
