"""Locked packages to a virtual environment, an object of the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from modelbuild.environment.fingerprint import write_fingerprint
from modelbuild.environment.interpreter import Interpreter
from modelbuild.spec.canonical import canonical_digest
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import LockedEnvironment, LockedWheel
from modelbuild.store.store import Store

LAYOUT = 1
"""Goes up when the same packages are laid out in another way."""


def environment_key(environment: LockedEnvironment, interpreter: Interpreter) -> Digest:
    """The store's key of an environment: of its packages, its interpreter and our layout."""
    return canonical_digest(
        {
            "environment": str(environment.digest),
            "interpreter": str(interpreter.digest),
            "layout": LAYOUT,
        }
    )


def realise_environment(
    environment: LockedEnvironment,
    interpreter: Interpreter,
    store: Store,
    on_progress: Callable[[str], None],
    layers: Sequence[Path] = (),
) -> Path:
    """The environment's object: a folder to mount at /build/env. Made once.

    `layers` are the objects of its distributions of a base interpreter.

    Raises DigestMismatchError for a package with other bytes than locked, UnavailableError for
    one that can't be had.
    """
    key = environment_key(environment, interpreter)
    path = store.path(key, f"env-{environment.key}")

    def waiting(holder: str) -> None:
        on_progress(f"waiting for {holder}, which is making environment {environment.key}")

    if path.exists():
        return path
    with store.lock(f"environment-{key.store_key}", waiting):
        if not path.exists():
            _make_environment(environment, interpreter, store, on_progress, layers)
    return path


def _make_environment(
    environment: LockedEnvironment,
    interpreter: Interpreter,
    store: Store,
    on_progress: Callable[[str], None],
    layers: Sequence[Path],
) -> None:
    """Make and publish one environment.

    1. Install the wheels into a virtual environment that runs here. 2. Check them against what
    their RECORD says: uv's cache, which they share, may have been changed. 3. Put the layers under
    them. 4. Turn it into one that is right at /build/env. 5. Compile. 6. Publish.
    """
    from modelbuild.environment.bytecode import compile_bytecode
    from modelbuild.environment.fetch import InstallOrder, install
    from modelbuild.environment.layers import link_layer
    from modelbuild.environment.venv import PLACE, make_skeleton, settle, site_packages
    from modelbuild.environment.wheel_record import repair_changed

    key = environment_key(environment, interpreter)
    name = f"env-{environment.key}"
    with store.temporary("environment") as work:
        folder = work / "env"
        python = make_skeleton(folder, interpreter)  # 1
        order = InstallOrder(
            environment=environment,
            wheels=environment.wheels,
            target=["--python", str(python)],
            work=work,
        )
        if environment.wheels:
            on_progress(f"installing {_packages(environment)}")
        install(order, on_progress)
        repair_changed(order, site_packages(folder, interpreter), on_progress)  # 2
        for layer in layers:  # 3
            link_layer(layer, folder, site_packages(folder, interpreter))
        settle(folder, interpreter)  # 4
        on_progress("compiling bytecode")
        compile_bytecode(folder, PLACE, interpreter.executable)  # 5
        write_fingerprint(folder, store.path(key, name))  # 6
        store.publish(folder, name, key=key, shared_files=True)


def _packages(environment: LockedEnvironment) -> str:
    count = len(environment.wheels)
    return "1 package" if count == 1 else f"{count} packages"


def unpacked_wheel(
    environment: LockedEnvironment,
    wheel: LockedWheel,
    store: Store,
    on_progress: Callable[[str], None],
) -> Path:
    """A folder with the contents of one wheel, for any platform; an object of the store."""
    key = canonical_digest({"wheel": wheel.sha256, "layout": LAYOUT})
    path = store.path(key, f"wheel-{wheel.name}-{wheel.version}")

    def waiting(holder: str) -> None:
        on_progress(f"waiting for {holder}, which is unpacking {wheel.filename}")

    if path.exists():
        return path
    with store.lock(f"wheel-{key.store_key}", waiting):
        if not path.exists():
            _unpack_wheel(environment, wheel, store, key, on_progress)
    return path


def _unpack_wheel(
    environment: LockedEnvironment,
    wheel: LockedWheel,
    store: Store,
    key: Digest,
    on_progress: Callable[[str], None],
) -> None:
    import sys

    from modelbuild.environment.fetch import InstallOrder, install
    from modelbuild.environment.venv import settle_packages
    from modelbuild.environment.wheel_record import repair_changed

    name = f"wheel-{wheel.name}-{wheel.version}"
    with store.temporary("wheel") as work:
        folder = work / "wheel"
        # uv wants some interpreter to run with, whatever the target is: this one is there.
        target = ["--target", str(folder), "--python", sys.executable]
        target += ["--python-version", environment.python]
        order = InstallOrder(environment=environment, wheels=[wheel], target=target, work=work)
        on_progress(f"unpacking {wheel.name} {wheel.version}")
        install(order, on_progress)
        repair_changed(order, folder, on_progress)
        (folder / ".lock").unlink(missing_ok=True)
        settle_packages(folder, folder / "bin", sys.prefix)
        write_fingerprint(folder, store.path(key, name))
        store.publish(folder, name, key=key, shared_files=True)
