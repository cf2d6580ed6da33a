"""Interpreters: found through uv, copied into the store, pinned by content."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from modelbuild.environment.host_python import (
    find_library_at,
    inspect,
    layout,
    layout_digest,
    write_layout,
)
from modelbuild.environment.interpreter import (
    HostPython,
    Interpreter,
    find_python,
    realise_interpreter,
)
from modelbuild.errors import ModelbuildError, UnavailableError
from modelbuild.spec.digest import Digest
from modelbuild.store.store import Store
from modelbuild.store.tree import scan_tree

THIS_VERSION = ".".join(map(str, sys.version_info[:3]))
NOT_INSTALLED = "3.8.1"

REPORT = """
import bz2, ctypes, json, lzma, sqlite3, ssl, sys, zlib
maps = [line.split()[-1] for line in open("/proc/self/maps") if "/libpython" in line]
print(json.dumps([sys.version, sys.prefix, ssl.__cached__, sorted(set(maps))]))
"""


@pytest.fixture(scope="module")
def python() -> HostPython:
    return find_python(THIS_VERSION)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def interpreter(python: HostPython, store: Store) -> Interpreter:
    return realise_interpreter(THIS_VERSION, [python.digest], store)


def in_sandbox(interpreter: Path, *command: str) -> str:
    """Run a command with the interpreter at /build/python and nothing else of ours."""
    shown = ["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev"]
    for name in ("bin", "lib", "lib64"):
        if Path("/", name).exists():
            shown += ["--symlink", f"usr/{name}", f"/{name}"]
    shown += ["--ro-bind", str(interpreter), "/build/python"]
    bwrap = shutil.which("bwrap") or str(Path(sysconfig.get_path("scripts"), "bwrap"))
    done = subprocess.run(
        [bwrap, "--unshare-all", *shown, *command],
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_found_python_is_the_one_asked_for(python: HostPython) -> None:
    assert python.version == THIS_VERSION
    assert python.executable.is_file()


def test_a_virtual_environments_python_counts_as_the_one_it_was_made_from() -> None:
    base = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    assert inspect(Path(sys.executable)) == inspect(base)


def test_the_object_runs_at_its_place_with_its_own_library_and_bytecode(
    interpreter: Interpreter,
) -> None:
    name = interpreter.executable.name
    version, prefix, cached, libraries = json.loads(
        in_sandbox(interpreter.path, f"/build/python/bin/{name}", "-c", REPORT)
    )
    assert version == sys.version
    assert prefix == "/build/python"
    assert cached.startswith(f"/build/python/lib/{name}/__pycache__/ssl.")
    assert all(library.startswith("/build/python/lib/") for library in libraries)
    # A build without a shared library needs none.
    assert bool(libraries) == (interpreter.path / "py.so").exists()


def test_a_child_with_an_empty_environment_is_the_same_interpreter(
    interpreter: Interpreter,
) -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-VV'], env={}, check=True)"
    said = in_sandbox(interpreter.path, "/build/python/bin/python3", "-c", child)
    assert said.strip() == f"Python {sys.version}".replace("\n", "")


def test_bytecode_names_the_place_in_the_sandbox_and_not_the_store(
    interpreter: Interpreter,
) -> None:
    compiled = list((interpreter.path / "lib").rglob("*.pyc"))
    assert len(compiled) > 400
    store = os.fsencode(interpreter.path.parent.parent)
    assert not [file for file in compiled if store in file.read_bytes()]


def test_nothing_that_was_installed_into_the_hosts_python_gets_in(
    interpreter: Interpreter,
) -> None:
    names = {path.name for path in interpreter.path.rglob("*")}
    assert not names & {"site-packages", "dist-packages", "sitecustomize.py", "test", "idlelib"}


def test_the_pinned_digest_is_that_of_the_tree_without_bytecode(
    python: HostPython, tmp_path: Path
) -> None:
    write_layout(layout(inspect(python.executable)), tmp_path / "python")
    assert scan_tree(tmp_path / "python").digest == python.digest


def test_bytecode_and_tree_are_the_same_twice(
    python: HostPython, interpreter: Interpreter, tmp_path: Path
) -> None:
    mask = os.umask(0o077)
    try:
        again = realise_interpreter(
            THIS_VERSION, [python.digest], Store.open(tmp_path / "a store with spaces")
        )
    finally:
        os.umask(mask)
    assert scan_tree(again.path) == scan_tree(interpreter.path)


def test_an_accepted_interpreter_in_the_store_serves_without_a_look_at_the_host(
    python: HostPython,
    interpreter: Interpreter,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    accepted = [Digest.of(b"another machine's"), python.digest]
    assert realise_interpreter(THIS_VERSION, accepted, store) == interpreter


def test_another_build_of_the_same_version_is_refused(python: HostPython, tmp_path: Path) -> None:
    accepted = Digest.of(b"another machine's")
    with pytest.raises(UnavailableError) as caught:
        realise_interpreter(THIS_VERSION, [accepted], Store.open(tmp_path))
    message = str(caught.value).splitlines()
    assert message[:3] == [
        f"this machine's CPython {THIS_VERSION} is not a build that the lock accepts",
        f"  wanted: {accepted}",
        f"  found:  {python.digest}  ({python.executable})",
    ]
    assert message[-1] == ("To accept this build of Python: modelbuild lock --update python")
    assert not list(tmp_path.rglob("*cpython*"))


def test_a_missing_version_says_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "bin"
    alone.mkdir()
    base = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    (alone / "python3").symlink_to(base)
    monkeypatch.setenv("PATH", str(alone))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "none"))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    wanted = (
        f"CPython {NOT_INSTALLED} is not installed\n"
        f"  wanted: {NOT_INSTALLED}\n"
        f"  found:  {THIS_VERSION}\n"
        f"To install it: uv python install {NOT_INSTALLED}"
    )
    with pytest.raises(UnavailableError) as caught:
        find_python(NOT_INSTALLED)
    assert str(caught.value) == wanted
    with pytest.raises(UnavailableError) as caught:
        realise_interpreter(NOT_INSTALLED, [], Store.open(tmp_path / "store"))
    assert str(caught.value) == wanted


def test_a_uv_that_cannot_look_is_not_a_missing_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "uv.toml"
    config.write_text('index-url = "http://somebody:secret@index.test/simple/" [')
    monkeypatch.setenv("UV_CONFIG_FILE", str(config))
    monkeypatch.delenv("UV_NO_CONFIG", raising=False)
    for look in (
        lambda: find_python(THIS_VERSION),
        lambda: realise_interpreter(THIS_VERSION, [], Store.open(tmp_path / "store")),
    ):
        with pytest.raises(UnavailableError) as caught:
            look()
        message = str(caught.value)
        assert message.startswith(
            f"uv can't look for CPython {THIS_VERSION}\n  uv says: error: Failed to parse"
        )
        assert str(config) in message
        assert "://index.test/simple/" in message
        assert "secret" not in message
        assert "uv python install" not in message


def test_of_what_uv_says_the_beginning_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uv.toml").write_text("nonsense = 1\n")
    monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "uv.toml"))
    with pytest.raises(UnavailableError) as caught:
        find_python(THIS_VERSION)
    message = str(caught.value)
    assert "unknown field `nonsense`" in message
    assert len(message) < 800
    assert message.endswith("...")


def test_a_python_that_does_not_run_is_shown_with_what_installs_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python3.8"
    python.write_text("#!/bin/sh\necho 'no such version is chosen' >&2\nexit 127\n")
    python.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "none"))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    with pytest.raises(UnavailableError) as caught:
        find_python(NOT_INSTALLED)
    message = str(caught.value)
    assert message.startswith(f"uv can't look for CPython {NOT_INSTALLED}\n  uv says: error: ")
    assert "no such version is chosen" in message
    assert message.endswith(f"\nTo install it: uv python install {NOT_INSTALLED}")


def test_equal_installations_at_one_place_have_one_digest(tmp_path: Path) -> None:
    """Bytecode, packages and pickles that came about since do not count."""
    installation = inspect(Path(sys.executable))
    first = layout(installation)
    write_layout(first, tmp_path / "python")
    copy = inspect(tmp_path / "python" / "bin" / installation.name)
    before = layout_digest(layout(copy))
    lib = copy.stdlib
    for stray in ("__pycache__/os.cpython-311.pyc", "site-packages/x.pth", "lib2to3/G.pickle"):
        (lib / stray).parent.mkdir(exist_ok=True, parents=True)
        (lib / stray).write_text("stray")
    (lib / "dangling.py").symlink_to("/nonexistent/dangling.py")
    assert layout_digest(layout(copy)) == before
    (lib / "os.py").write_text("changed")
    assert layout_digest(layout(copy)) != before


WALKED = """
import sys
from pathlib import Path
from modelbuild.environment.host_python import inspect, layout

installation = inspect(Path(sys.argv[1]))
walked = []
sys.addaudithook(lambda event, found: event == "os.scandir" and walked.append(str(found[0])))
layout(installation)
print("\\n".join(walked))
"""


def test_packages_that_were_installed_into_the_host_are_not_walked(tmp_path: Path) -> None:
    """There may be a hundred thousand files of them."""
    installation = inspect(Path(sys.executable))
    write_layout(layout(installation), tmp_path / "python")
    python = tmp_path / "python" / "bin" / installation.name
    lib = inspect(python).stdlib
    for name in ("site-packages/torch", "config-3.11", "idlelib", "email/site-packages"):
        (lib / name).mkdir(parents=True)
    command = [sys.executable, "-c", WALKED, str(python)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    walked = {path for path in done.stdout.splitlines() if path.startswith(str(lib))}
    assert {str(lib), str(lib / "email"), str(lib / "email" / "site-packages")} <= walked
    left_out = [lib / name for name in ("site-packages", "config-3.11", "idlelib")]
    assert [path for path in left_out if str(path) in walked] == []


def test_a_library_name_that_does_not_fit_is_an_error_and_not_a_broken_executable() -> None:
    executable = b"\x7fELF..\0libpython3.11.so.1.0\0.."
    moved = find_library_at(executable, "$ORIGIN/../py.so", "libpython3.11.so.1.0")
    assert moved == b"\x7fELF..\0$ORIGIN/../py.so\0\0\0\0\0.."
    assert len(moved) == len(executable)
    with pytest.raises(ModelbuildError, match="in a way not known here"):
        find_library_at(executable, "/a/path/that/is/too/long", "libpython3.11.so.1.0")
    with pytest.raises(ModelbuildError, match="in a way not known here"):
        find_library_at(executable * 2, "$ORIGIN/../py.so", "libpython3.11.so.1.0")
