"""Links in the user's folders that point at outputs, and keep them from being collected."""

from __future__ import annotations

import os
from pathlib import Path

from modelbuild.spec.digest import Digest
from modelbuild.store.store import Store


def link_result(link: Path, target: Path, store: Store) -> None:
    """Let `link` point at an output. A file or folder that is no link is left alone."""
    try:
        if os.readlink(link) == str(target):
            return
    except FileNotFoundError:
        pass
    except OSError:
        return
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        temporary.symlink_to(target)
        temporary.replace(link)
    finally:
        temporary.unlink(missing_ok=True)
    name = Digest.of(os.fsencode(link)).store_key
    store.write_file(f"roots/{name}", os.fsencode(link) + b"\n")


def rooted(store: Store) -> dict[Path, list[Path]]:
    """The links to each object that has one. Links that are gone are forgotten."""
    found: dict[Path, list[Path]] = {}
    folder = store.root / "roots"
    for root in sorted(folder.iterdir()) if folder.exists() else ():
        link = Path(os.fsdecode(root.read_bytes().rstrip(b"\n")))
        if link.is_symlink():
            found.setdefault(link.readlink(), []).append(link)
        else:
            root.unlink()
    return found
