"""The store: what was fetched and built, each object immutable once it is there.

objects/<digest>-<name>    trees; an object is valid when it exists under its name
derivations/               what went into each output
realisations/              records of what was built, see realisations.py
logs/                      what stages printed and what was recorded of their trainings, of failed
                           builds too
roots/                     links in users' folders that point at outputs
probes/                    what probe operations gave: evidence, see build/probes.py
fingerprints/              of environments and interpreters, see environment/fingerprint.py
stat-cache/, wheel-metadata/, unchanged/
                           what is remembered; to lose it costs time only
failed/, corrupt/          what a failed stage left, and what was altered: evidence
tmp/                       work in progress, each folder beside a lock file of its owner
locks/                     one file for each thing that only one process may make at a time
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelbuild.errors import ModelbuildError
from modelbuild.spec.digest import STORE_DIGITS, Digest
from modelbuild.store.copies import fsync_tree, make_read_only
from modelbuild.store.location import store_root
from modelbuild.store.tree import Tree, scan_tree

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    path: Path
    tree: Tree


@dataclass(frozen=True, slots=True)
class Store:
    """One store. Nothing in it is ever changed in place."""

    root: Path

    @classmethod
    def open(cls, root: Path | None = None) -> Store:
        """The store at `root`, else $MODELBUILD_STORE, else $XDG_DATA_HOME/modelbuild."""
        path = Path(store_root(os.environ) if root is None else os.path.abspath(root))
        if path.exists() and not path.is_dir():
            raise ModelbuildError(
                f"the store at {path} is not a folder",
                hint="To keep the store elsewhere, set MODELBUILD_STORE to a folder of yours.",
            )
        return cls(path)

    def path(self, digest: Digest, name: str) -> Path:
        """Where the object is, or would be."""
        return self.root / "objects" / f"{digest.store_key}-{_UNSAFE.sub('-', name)}"

    def find(self, digest: Digest) -> Path | None:
        """An object with this digest under any name."""
        folder = self.root / "objects"
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return None
        prefix = digest.hex[:STORE_DIGITS] + "-"
        return next((folder / name for name in sorted(names) if name.startswith(prefix)), None)

    @contextmanager
    def temporary(self, prefix: str) -> Iterator[Path]:
        """A fresh folder on the file system of the objects, removed at the end.

        What a killed process left behind is removed by the next one that comes here.
        """
        import secrets

        from filelock import FileLock

        folder = self._make("tmp")
        self._remove_abandoned(folder)
        work = folder / f"{prefix}-{secrets.token_hex(6)}"
        with FileLock(f"{work}.lock"):
            work.mkdir(mode=0o700)
            try:
                yield work
            finally:
                remove_tree(work)
                Path(f"{work}.lock").unlink(missing_ok=True)

    def _remove_abandoned(self, folder: Path) -> None:
        from filelock import FileLock, Timeout

        for lock in sorted(folder.glob("*.lock")):
            try:
                with FileLock(lock, timeout=0):
                    remove_tree(lock.with_suffix(""))
                    lock.unlink(missing_ok=True)
            except Timeout:
                continue

    def publish(
        self, folder: Path, name: str, *, key: Digest | None = None, shared_files: bool = False
    ) -> StoredObject:
        """Make a folder from `temporary` a valid object, in one step.

        1. Hash it. 2. Make it read-only (with `shared_files`, hard links to files outside, only
        its folders). 3. Write it to the disk. 4. Rename it to its name: `key`, else its tree's
        digest. Where that exists already and is what its name says, it is kept.
        """
        tree = scan_tree(folder)
        target = self.path(key or tree.digest, name)
        if target.exists():
            if key is not None or scan_tree(target).digest == tree.digest:
                return StoredObject(path=target, tree=tree)
            self.set_aside(target)
        make_read_only(folder, files=not shared_files)
        fsync_tree(folder)
        self._make("objects")
        # A folder that is read-only itself can't be given another parent.
        folder.chmod(0o755)
        try:
            folder.rename(target)
        except OSError:
            if not target.exists():
                raise
            return StoredObject(path=target, tree=tree)
        target.chmod(0o555)
        _fsync_folder(target.parent)
        return StoredObject(path=target, tree=tree)

    def set_aside(self, path: Path) -> None:
        """Move an altered object out of the way, to `corrupt/`: it stays as evidence."""
        import secrets

        target = self._make("corrupt") / f"{path.name}-{secrets.token_hex(4)}"
        path.chmod(0o755)
        path.rename(target)

    @contextmanager
    def lock(self, key: str, on_wait: Callable[[str], None]) -> Iterator[None]:
        """Hold `key` against other processes. `on_wait` gets the holder's description once."""
        from filelock import FileLock, Timeout

        folder = self._make("locks")
        name = _UNSAFE.sub("-", key)
        holder = folder / f"{name}.holder"
        lock = FileLock(folder / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait(_read_holder(holder))
            lock.acquire()
        try:
            holder.write_text(json.dumps({"pid": os.getpid()}))
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def write_file(self, relative: str, data: bytes) -> Path:
        """A file of the store, complete or not there at all."""
        target = self.root / relative
        self._make(str(Path(relative).parent))
        write_atomically(target, data)
        return target

    def _make(self, name: str) -> Path:
        folder = self.root / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelbuildError(
                f"the store at {self.root} can't be written",
                facts=[("found", error.strerror or str(error))],
                hint="To keep the store elsewhere, set MODELBUILD_STORE to a folder of yours.",
            ) from error
        return folder


def write_atomically(target: Path, data: bytes) -> None:
    """Temporary file beside the target, fsync, rename, fsync of the folder."""
    import secrets

    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    _fsync_folder(target.parent)


def remove_tree(folder: Path) -> None:
    """Remove a folder whose own folders may be read-only or unreadable. Missing is fine."""
    import shutil

    if not folder.exists():
        return
    os.chmod(folder, 0o700)
    for parent, names, _ in os.walk(folder):
        for path in (os.path.join(parent, name) for name in names):
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(folder)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_holder(path: Path) -> str:
    try:
        return f"process {json.loads(path.read_text())['pid']}"
    except (OSError, ValueError, KeyError):
        return "another process"
