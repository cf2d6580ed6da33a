"""Environments: from locked wheels to a virtual environment that is right at /build/env."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from local_index import LocalIndex, make_sdist, make_wheel, only_packages_from, sha256

from modelbuild.environment.fingerprint import check_fingerprint, write_fingerprint
from modelbuild.environment.interpreter import Interpreter, find_python, realise_interpreter
from modelbuild.environment.realise import (
    environment_key,
    realise_environment,
    unpacked_wheel,
)
from modelbuild.environment.venv import record_digest, with_interpreter
from modelbuild.errors import DigestMismatchError, UnavailableError
from modelbuild.locking.resolve import resolve_environment
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import LockedEnvironment, LockedWheel
from modelbuild.spec.recipe import Device, Environment
from modelbuild.store.store import Store, remove_tree
from modelbuild.store.tree import scan_tree

THIS_VERSION = ".".join(map(str, sys.version_info[:3]))
LIB = f"lib/python3.{sys.version_info.minor}/site-packages"
TOOL = {
    "tool/__init__.py": "names = {'a', 'b'}\ndef main(): print('tool ran')\n",
    "tool/data/table.csv": "x,y\n1,2\n",
    "tool/template.py": "this is {{ not }} Python\n",
    "tool-1.0.dist-info/entry_points.txt": "[console_scripts]\ntool = tool:main\n",
    "tool-1.0.data/scripts/tool-script": "#!python\nimport tool\ntool.main()\n",
}


def silently(message: str) -> None:
    pass


def locked(path: Path) -> LockedWheel:
    name, version = path.name.removesuffix(".tar.gz").split("-")[:2]
    return LockedWheel(
        name=name,
        version=version,
        filename=path.name,
        sha256=sha256(path),
        bytes=path.stat().st_size,
        licence="MIT",
    )


def environment_of(*files: Path) -> LockedEnvironment:
    wheels = tuple(sorted((locked(file) for file in files), key=lambda wheel: wheel.name))
    return LockedEnvironment(
        python=THIS_VERSION, platform="x86_64-manylinux_2_28", backend="none", wheels=wheels
    )


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Interpreter:
    store = Store.open(tmp_path_factory.mktemp("interpreters"))
    return realise_interpreter(THIS_VERSION, [find_python(THIS_VERSION).digest], store)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip alone is configured with, and an empty cache."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    only_packages_from(monkeypatch, find_links=folder, uv_cache=tmp_path / "uv-cache")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "store")
    yield store
    remove_tree(store.root)


def in_sandbox(environment: Path, interpreter: Interpreter, *command: str) -> str:
    shown = ["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev"]
    for name in ("bin", "lib", "lib64"):
        if Path("/", name).exists():
            shown += ["--symlink", f"usr/{name}", f"/{name}"]
    shown += ["--ro-bind", str(interpreter.path), "/build/python"]
    shown += ["--ro-bind", str(environment), "/build/env"]
    bwrap = shutil.which("bwrap") or str(Path(sysconfig.get_path("scripts"), "bwrap"))
    done = subprocess.run(
        [bwrap, "--unshare-all", *shown, *command],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / "objects").glob("*"))


# What it is


def test_packages_and_scripts_run_in_the_sandbox(
    wheels: Path, store: Store, interpreter: Interpreter
) -> None:
    environment = environment_of(make_wheel(wheels, "tool", "1.0", files=TOOL))
    path = realise_environment(environment, interpreter, store, silently)
    code = "import sys, tool; print(sys.version, sys.prefix, sys.base_prefix, tool.__cached__)"
    cached = f"/build/env/{LIB}/tool/__pycache__/__init__.{sys.implementation.cache_tag}.pyc"
    for python in ("python", "python3", interpreter.executable.name):
        said = in_sandbox(path, interpreter, f"/build/env/bin/{python}", "-c", code)
        assert said.strip() == f"{sys.version} /build/env /build/python {cached}"
    assert in_sandbox(path, interpreter, "/build/env/bin/tool") == "tool ran\n"
    assert in_sandbox(path, interpreter, "/build/env/bin/tool-script") == "tool ran\n"


def test_scripts_name_the_interpreter_in_the_sandbox_and_record_knows(
    wheels: Path, store: Store, interpreter: Interpreter
) -> None:
    environment = environment_of(make_wheel(wheels, "tool", "1.0", files=TOOL))
    path = realise_environment(environment, interpreter, store, silently)
    record = (path / LIB / "tool-1.0.dist-info/RECORD").read_text()
    rows = {row[0]: row[1:] for row in csv.reader(record.splitlines())}
    for script in ("tool", "tool-script"):
        content = (path / "bin" / script).read_bytes()
        assert content.splitlines()[0] == b"#!/build/env/bin/python"
        digest = f"sha256={record_digest(content)}"
        assert rows[f"../../../bin/{script}"] == [digest, str(len(content))]
    assert {Path(name).name for name in rows}.isdisjoint({"uv_cache.json", "direct_url.json"})


def test_bytecode_is_believed_whatever_the_times_of_its_sources(
    wheels: Path, store: Store, interpreter: Interpreter
) -> None:
    environment = environment_of(make_wheel(wheels, "tool", "1.0", files=TOOL))
    path = realise_environment(environment, interpreter, store, silently)
    compiled = list(path.rglob("*.pyc"))
    assert [file.name.split(".")[0] for file in compiled] == ["__init__"]
    unchecked_hash = (1).to_bytes(4, "little")  # PEP 552
    assert compiled[0].read_bytes()[4:8] == unchecked_hash


def test_nothing_in_it_names_this_machines_folders(
    wheels: Path, store: Store, interpreter: Interpreter, tmp_path: Path
) -> None:
    environment = environment_of(make_wheel(wheels, "tool", "1.0", files=TOOL))
    path = realise_environment(environment, interpreter, store, silently)
    files = [file for file in path.rglob("*") if file.is_file()]
    assert len(files) > 10
    assert not [file for file in files if os.fsencode(tmp_path) in file.read_bytes()]
    assert not [file for file in path.rglob("*") if file.is_symlink() and "/" in os.readlink(file)]


def test_the_same_tree_from_other_folders_umask_variables_and_user_settings(
    wheels: Path, interpreter: Interpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = environment_of(
        make_wheel(wheels, "tool", "1.0", files=TOOL), make_wheel(wheels, "other", "2.0")
    )
    first = realise_environment(environment, interpreter, Store.open(tmp_path / "a"), silently)
    long_name = "a folder with spaces, " + "too long for a first line " * 6
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "another-cache"))
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    monkeypatch.setenv("UV_LINK_MODE", "copy")
    monkeypatch.setenv("UV_COMPILE_BYTECODE", "1")
    monkeypatch.setenv("UV_NO_INSTALLER_METADATA", "1")
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    mask = os.umask(0o077)
    try:
        second = realise_environment(
            environment, interpreter, Store.open(tmp_path / long_name), silently
        )
    finally:
        os.umask(mask)
    assert scan_tree(first) == scan_tree(second)


def test_files_are_hard_links_to_the_cache_and_keep_its_permissions(
    wheels: Path, store: Store, interpreter: Interpreter, tmp_path: Path
) -> None:
    environment = environment_of(make_wheel(wheels, "tool", "1.0", files=TOOL))
    path = realise_environment(environment, interpreter, store, silently)
    installed = path / LIB / "tool/__init__.py"
    cached = next((tmp_path / "uv-cache").rglob("tool/__init__.py"))
    assert installed.samefile(cached)
    assert cached.stat().st_mode & 0o200
    assert not (path / LIB / "tool").stat().st_mode & 0o222
    assert not list((tmp_path / "uv-cache").rglob("*.pyc"))


def test_the_bootstrap_is_loaded_where_there_is_one(
    wheels: Path, store: Store, interpreter: Interpreter, tmp_path: Path
) -> None:
    environment = environment_of(make_wheel(wheels, "tool", "1.0", files=TOOL))
    path = realise_environment(environment, interpreter, store, silently)
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime/bootstrap.py").write_text("print('bootstrap of', __file__)\n")
    line = (path / LIB / "modelbuild.pth").read_text()
    assert line.startswith("import os, ")
    assert line.count("\n") == 1
    run = [sys.executable, "-I", "-X", "dev", "-W", "error", "-c", f"exec({line!r})"]
    root = {"MODELBUILD_ROOT": str(tmp_path)}
    said = subprocess.run(run, env=root, capture_output=True, text=True, check=True)
    assert said.stdout == f"bootstrap of {tmp_path}/runtime/bootstrap.py\n"
    assert said.stderr == ""
    nowhere = {"MODELBUILD_ROOT": str(tmp_path / "nowhere")}
    said = subprocess.run(run, env=nowhere, capture_output=True, text=True, check=True)
    assert (said.stdout, said.stderr) == ("", "")


def test_an_environment_without_packages_is_one_too(
    wheels: Path, store: Store, interpreter: Interpreter
) -> None:
    path = realise_environment(environment_of(), interpreter, store, silently)
    said = in_sandbox(path, interpreter, "/build/env/bin/python", "-c", "print('runs')")
    assert said == "runs\n"


def test_a_package_is_built_from_source_where_the_lock_has_its_sdist(
    wheels: Path, store: Store, interpreter: Interpreter
) -> None:
    make_wheel(wheels, "sourced", "1.0")
    environment = environment_of(make_sdist(wheels, "sourced", "1.0"))
    path = realise_environment(environment, interpreter, store, silently)
    assert (path / LIB / "sourced.py").is_file()


def test_its_key_follows_packages_and_interpreter(wheels: Path, interpreter: Interpreter) -> None:
    one = environment_of(make_wheel(wheels, "tool", "1.0"))
    two = environment_of(make_wheel(wheels, "tool", "1.1"))
    other = replace(interpreter, digest=Digest.of(b"another"))
    assert len({environment_key(e, i) for e in (one, two) for i in (interpreter, other)}) == 4


def test_first_lines_of_every_form_are_mended() -> None:
    long = b"#!/bin/sh\n'''exec' '/tmp/a b/bin/python' \"$0\" \"$@\"\n' '''\nimport x\n"
    for script in (b"#!/tmp/a b/bin/python\nimport x\n", long):
        assert with_interpreter(script, "/tmp/a b", "/p") == b"#!/p\nimport x\n"
    for script in (b"#!/bin/sh\necho\n", b"\x7fELF\n", b"", b"#!/usr/bin/env python\nimport x\n"):
        assert with_interpreter(script, "/tmp/a b", "/p") == script


# Where it comes from


def test_with_a_warm_cache_it_builds_offline(
    wheels: Path,
    store: Store,
    interpreter: Interpreter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wheel = make_wheel(tmp_path / "served", "tool", "1.0", files=TOOL)
    environment = environment_of(wheel)
    with LocalIndex(tmp_path / "served") as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        first = realise_environment(environment, interpreter, store, silently)
        asked = len(index.requests)
        assert asked
        # The cache is looked at first, although the index could be reached.
        again = Store.open(tmp_path / "again")
        assert scan_tree(realise_environment(environment, interpreter, again, silently))
        assert len(index.requests) == asked
    offline = Store.open(tmp_path / "offline")
    monkeypatch.setenv("UV_OFFLINE", "1")
    second = realise_environment(environment, interpreter, offline, silently)
    assert scan_tree(first) == scan_tree(second)


def test_other_bytes_than_locked_are_refused(
    wheels: Path, store: Store, interpreter: Interpreter
) -> None:
    file = make_wheel(wheels, "tool", "1.0", files=TOOL)
    environment = environment_of(file)
    wanted = sha256(file)
    make_wheel(wheels, "tool", "1.0")
    with pytest.raises(DigestMismatchError) as caught:
        realise_environment(environment, interpreter, store, silently)
    assert str(caught.value) == (
        "digest mismatch in package 'tool': tool-1.0-py3-none-any.whl\n"
        f"  locked: sha256:{wanted}\n"
        f"  found:  sha256:{sha256(file)}\n"
        "If the change is intended: modelbuild lock --update tool"
    )
    assert caught.value.exit_code == 5
    assert objects(store) == []


@pytest.mark.parametrize("hashes", [True, False])
def test_other_bytes_than_locked_are_refused_from_an_index_too(
    wheels: Path,
    store: Store,
    interpreter: Interpreter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hashes: bool,
) -> None:
    """Whether the index says what digest to expect or not."""
    file = make_wheel(tmp_path / "served", "tool", "1.0", files=TOOL)
    environment = environment_of(file)
    wanted = sha256(file)
    make_wheel(tmp_path / "served", "tool", "1.0")
    with LocalIndex(tmp_path / "served", hashes=hashes) as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        with pytest.raises(DigestMismatchError) as caught:
            realise_environment(environment, interpreter, store, silently)
    assert str(caught.value) == (
        "digest mismatch in package 'tool': tool-1.0-py3-none-any.whl\n"
        f"  locked: sha256:{wanted}\n"
        f"  found:  sha256:{sha256(file)}\n"
        "If the change is intended: modelbuild lock --update tool"
    )


def test_hashes_are_checked_whatever_the_users_settings(
    wheels: Path, store: Store, interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = environment_of(make_wheel(wheels, "tool", "1.0", files=TOOL))
    make_wheel(wheels, "tool", "1.0")
    monkeypatch.setenv("UV_NO_VERIFY_HASHES", "1")
    with pytest.raises(DigestMismatchError):
        realise_environment(environment, interpreter, store, silently)


def test_a_package_that_is_nowhere_says_so_without_credentials(
    wheels: Path,
    store: Store,
    interpreter: Interpreter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = environment_of(make_wheel(tmp_path / "elsewhere", "tool", "1.0"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://somebody:secret@127.0.0.1:9/simple/")
    with pytest.raises(UnavailableError) as caught:
        realise_environment(environment, interpreter, store, silently)
    message = str(caught.value)
    assert message.startswith("cannot get package tool 1.0\n  uv says: error: ")
    assert "127.0.0.1:9" in message
    assert message.endswith(
        "\nMake the package index reachable, or set UV_FIND_LINKS to a folder of wheels."
    )
    assert "somebody" not in message
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(UnavailableError) as caught:
        realise_environment(environment, interpreter, store, silently)
    assert str(caught.value).endswith(
        "\nUV_OFFLINE is set: without it, uv also looks in the package indexes."
    )


def test_why_the_configured_index_failed_comes_before_what_pytorchs_says(
    wheels: Path,
    store: Store,
    interpreter: Interpreter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = environment_of(make_wheel(tmp_path / "elsewhere", "torch", "1.0"))
    environment = replace(environment, backend="cpu")
    for name in ("ALL_PROXY", "HTTPS_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing leaves this machine
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with LocalIndex(wheels) as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        with pytest.raises(UnavailableError) as caught:
            realise_environment(environment, interpreter, store, silently)
    facts = caught.value.facts
    assert [label for label, _ in facts] == ["uv says", "with PyTorch's index"]
    assert "torch was not found in the package registry" in facts[0][1]
    assert "127.0.0.1:9" not in facts[0][1]
    assert "Failed to fetch" in facts[1][1]


def test_a_cache_that_was_changed_is_not_believed(
    wheels: Path, interpreter: Interpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit in any environment that shares the cache's files is an edit in all."""
    environment = environment_of(make_wheel(tmp_path / "served", "tool", "1.0", files=TOOL))
    said: list[str] = []
    with LocalIndex(tmp_path / "served") as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        first = realise_environment(environment, interpreter, Store.open(tmp_path / "a"), silently)
        wanted = scan_tree(first)
        cached = next((tmp_path / "uv-cache").rglob("tool/__init__.py"))
        cached.write_text("print('edited')\n")
        again = Store.open(tmp_path / "b")
        second = realise_environment(environment, interpreter, again, said.append)
    assert scan_tree(second) == wanted
    assert "tool: tool/__init__.py is not as in the wheel; unpacking it again" in said
    with pytest.raises(DigestMismatchError) as caught:
        realise_environment(environment, interpreter, Store.open(tmp_path / "c"), silently)
    assert str(caught.value) == (
        "uv's cache holds changed files of tool 1.0\n"
        "  first:  tool/__init__.py\n"
        "  wanted: as in tool-1.0-py3-none-any.whl\n"
        "To have them fetched again: uv cache clean tool"
    )


def test_progress_is_told_in_short_lines(
    wheels: Path, store: Store, interpreter: Interpreter
) -> None:
    said: list[str] = []
    environment = environment_of(make_wheel(wheels, "tool", "1.0", files=TOOL))
    realise_environment(environment, interpreter, store, said.append)
    assert said == ["installing 1 package", "compiling bytecode"]
    realise_environment(environment, interpreter, store, said.append)
    assert len(said) == 2


# Unpacked wheels


@pytest.mark.parametrize(
    ("platform", "tag"),
    [
        ("x86_64-manylinux_2_28", "py3-none-any"),
        ("aarch64-manylinux_2_28", "cp312-cp312-manylinux_2_28_aarch64"),
    ],
)
def test_a_wheels_contents_are_had_for_any_platform(
    wheels: Path, store: Store, platform: str, tag: str
) -> None:
    file = make_wheel(wheels, "tool", "1.0", files=TOOL, tag=tag)
    environment = replace(environment_of(file), platform=platform, python="3.12.4")
    said: list[str] = []
    path = unpacked_wheel(environment, environment.wheels[0], store, said.append)
    assert said == ["unpacking tool 1.0"]
    assert (path / "tool/data/table.csv").read_text() == "x,y\n1,2\n"
    assert not list(path.rglob("*.pyc"))
    assert (path / "bin/tool-script").read_text().startswith("#!/build/env/bin/python\n")
    check_fingerprint(path)
    assert unpacked_wheel(environment, environment.wheels[0], store, silently) == path


# At the same time, and interrupted

_REALISE = """
import pickle, sys
from pathlib import Path
from modelbuild.environment.realise import realise_environment
from modelbuild.store.store import Store
environment, interpreter, root = pickle.loads(sys.stdin.buffer.read())
say = lambda message: print(message, flush=True)
print(realise_environment(environment, interpreter, Store.open(root), say))
"""


def realising(
    environment: LockedEnvironment, interpreter: Interpreter, store: Store
) -> subprocess.Popen[bytes]:
    import pickle

    process = subprocess.Popen(
        [sys.executable, "-c", _REALISE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdin
    process.stdin.write(pickle.dumps((environment, interpreter, store.root)))
    process.stdin.close()
    process.stdin = None
    return process


def many_modules(count: int) -> dict[str, str]:
    body = "\n".join(f"def f{n}(x): return [x + {n} for _ in range({n})]" for n in range(100))
    return {f"big/m{number}.py": body for number in range(count)}


def until(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdout
    for said in process.stdout:
        if said.startswith(line):
            return
    pytest.fail(f"ended without saying {line!r}")


def test_of_two_processes_one_makes_it_and_the_other_waits_and_uses_it(
    wheels: Path, store: Store, interpreter: Interpreter
) -> None:
    environment = environment_of(make_wheel(wheels, "big", "1.0", files=many_modules(40)))
    first = realising(environment, interpreter, store)
    until(first, b"compiling bytecode")
    first.send_signal(signal.SIGSTOP)
    second = realising(environment, interpreter, store)
    assert second.stdout
    assert second.stdout.readline().decode() == (
        f"waiting for process {first.pid}, which is making environment {environment.key}\n"
    )
    first.send_signal(signal.SIGCONT)
    rest, _ = first.communicate()
    waited, _ = second.communicate()
    assert first.returncode == second.returncode == 0
    assert waited == rest
    assert objects(store) == [Path(rest.decode().strip()).name]


@pytest.mark.parametrize("moment", [b"installing", b"compiling"])
def test_killed_at_any_moment_nothing_is_valid_and_the_next_one_succeeds(
    wheels: Path, store: Store, interpreter: Interpreter, moment: bytes
) -> None:
    environment = environment_of(make_wheel(wheels, "big", "1.0", files=many_modules(40)))
    process = realising(environment, interpreter, store)
    until(process, moment)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert objects(store) == []
    path = realise_environment(environment, interpreter, store, silently)
    assert len(list(path.rglob("big/__pycache__/*.pyc"))) == 40
    assert list((store.root / "tmp").iterdir()) == []


def test_a_killed_process_leaves_no_child_behind(
    wheels: Path, store: Store, interpreter: Interpreter
) -> None:
    environment = environment_of(make_wheel(wheels, "big", "1.0", files=many_modules(400)))
    process = realising(environment, interpreter, store)
    until(process, b"compiling")
    compilers = eventually(lambda: processes_of(interpreter))
    assert compilers
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert eventually(lambda: not processes_of(interpreter))


def processes_of(interpreter: Interpreter) -> Sequence[int]:
    def runs_it(process: Path) -> bool:
        try:
            return Path(os.readlink(process / "exe")) == interpreter.executable
        except OSError:
            return False

    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if runs_it(path)]


def eventually(condition):  # type: ignore[no-untyped-def]
    for _ in range(200):
        if found := condition():
            return found
        time.sleep(0.01)
    return condition()


# Changed later


def test_an_untouched_environment_passes_the_check(
    wheels: Path, store: Store, interpreter: Interpreter, tmp_path: Path
) -> None:
    environment = environment_of(make_wheel(wheels, "tool", "1.0", files=TOOL))
    path = realise_environment(environment, interpreter, store, silently)
    check_fingerprint(path)
    # Another environment with the same files changes their number of links and change time.
    realise_environment(environment, interpreter, Store.open(tmp_path / "other"), silently)
    check_fingerprint(path)


@pytest.mark.parametrize("change", ["edit", "touch", "add", "remove"])
def test_a_changed_object_names_the_first_changed_file_and_the_remedy(
    store: Store, change: str
) -> None:
    path = store.root / "objects" / "0123-env-x"
    (path / "lib").mkdir(parents=True)
    (path / "lib" / "a file.py").write_text("one\n")
    (path / "lib" / "z.py").write_text("one\n")
    write_fingerprint(path, path)
    check_fingerprint(path)
    file = path / "lib" / "a file.py"
    if change == "edit":
        file.write_text("other\n")
    elif change == "touch":
        os.utime(file, ns=(0, 1))
    elif change == "add":
        file = path / "lib" / "a"
        file.touch()
    else:
        file.unlink()
    with pytest.raises(DigestMismatchError) as caught:
        check_fingerprint(path)
    assert str(caught.value) == (
        f"changed since it was made: {path}\n"
        f"  first:   lib/{file.name}\n"
        "  changed: 1 file\n"
        f"To have it made again: chmod -R u+w {path} && rm -r {path}"
    )


# The real thing


@pytest.mark.slow
@pytest.mark.network
def test_torch_and_scikit_learn_become_an_environment_from_a_warm_cache(
    interpreter: Interpreter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Environment(python=THIS_VERSION, packages=("torch==2.13.0", "scikit-learn>=1.7"))
    assert asked.packages
    environment = resolve_environment(
        asked, asked.packages, THIS_VERSION, Device.CPU, None, None, cache=tmp_path / "resolver"
    )
    assert environment.backend == "cpu"
    first = realise_environment(environment, interpreter, Store.open(tmp_path / "a"), silently)
    started = time.monotonic()
    second = realise_environment(environment, interpreter, Store.open(tmp_path / "b"), silently)
    made = time.monotonic()
    checks = []
    for _ in range(5):
        before = time.monotonic()
        check_fingerprint(second)
        checks.append(time.monotonic() - before)
    tree = scan_tree(second)
    assert tree == scan_tree(first)
    own = sum(file.lstat().st_size for file in second.rglob("*") if file.lstat().st_nlink == 1)
    assert own < tree.bytes / 4
    code = "import torch, sklearn; print(torch.ones(3).sum().item())"
    assert in_sandbox(second, interpreter, "/build/env/bin/python", "-c", code) == "3.0\n"
    with capsys.disabled():
        print(
            f"\n{tree.files} files, {tree.bytes / 1e6:.0f} MB, {own / 1e6:.0f} MB of them beyond "
            f"the cache; made in {made - started:.1f} s, checked in {min(checks):.3f} s"
        )
    remove_tree(tmp_path)
