"""What the preload library pins below Python: in compiled programs, in real sandboxes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Tiny
from sandbox_stage import RUNTIME, VARIABLES, StageRunner, make_interpreter, make_stage

import modelbuild
from modelbuild.errors import UnavailableError
from modelbuild.sandbox import shipped_runtime
from modelbuild.sandbox.bubblewrap import Bubblewrap
from modelbuild.sandbox.doctor import examine
from modelbuild.sandbox.shipped_runtime import WITHOUT_PRELOAD, preload_library
from modelbuild.sandbox.unconfined import Unconfined

ROOT = Path(__file__).parent.parent
COMPILER = shutil.which("c++")
pytestmark = pytest.mark.skipif(
    COMPILER is None or not preload_library().exists(), reason="needs a C++ compiler"
)

DRAW = r"""
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>
#include <fstream>
#include <random>
#include <string>
#include <thread>

static void show(const char *how, unsigned long value) { printf("%s %016lx\n", how, value); }

static void draw() {
    unsigned long value = 0;
    if (getrandom(&value, sizeof value, 0) > 0) show("getrandom", value);
    if (!getentropy(&value, sizeof value)) show("getentropy", value);
    syscall(SYS_getrandom, &value, sizeof value, 0), show("syscall", value);
    int file = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (read(file, &value, sizeof value) > 0) show("open", value);
    FILE *stream = fopen("/dev/random", "rb");
    if (fread(&value, sizeof value, 1, stream)) show("fopen", value);
    std::ifstream("/dev/urandom").read((char *)&value, sizeof value), show("ifstream", value);
    std::random_device device;
    show("random_device", device() | (unsigned long)device() << 32);
    std::random_device named("/dev/urandom");
    show("named", named() | (unsigned long)named() << 32);
    fflush(stdout);
}

int main(int count, char **arguments) {
    if (count > 1 && std::string(arguments[1]) == "processors") {
        cpu_set_t mine, thread;
        sched_getaffinity(0, sizeof mine, &mine);
        pthread_getaffinity_np(pthread_self(), sizeof thread, &thread);
        printf("%u %ld %ld %d %d %d\n", std::thread::hardware_concurrency(),
               sysconf(_SC_NPROCESSORS_ONLN), sysconf(_SC_NPROCESSORS_CONF), get_nprocs(),
               CPU_COUNT(&mine), CPU_COUNT(&thread));
        return 0;
    }
    draw();
    for (int each = 0; each < 2; each++) {
        pid_t child = fork();
        if (!child) return draw(), 0;
        waitpid(child, nullptr, 0);
    }
}
"""


def variables(**more: str) -> dict[str, str]:
    return {**VARIABLES, "MODELBUILD_SEED": "42", "MODELBUILD_THREADS": "5", **more}


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("interpreter") / "python"
    yield make_interpreter(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    (folder / "draw.cpp").write_text(DRAW)
    assert COMPILER
    subprocess.run([COMPILER, "-O1", "-D_FORTIFY_SOURCE=2", "-pthread", "-o", "draw", "draw.cpp"],
                   cwd=folder, check=True)  # fmt: skip
    return folder / "draw"


@pytest.fixture(params=["full", "none"])
def stage(
    request: pytest.FixtureRequest, interpreter: Path, program: Path, tmp_path: Path
) -> StageRunner:
    sandbox = Bubblewrap() if request.param == "full" else Unconfined()
    try:
        sandbox.check()
    except UnavailableError as error:
        pytest.skip(str(error))
    mounts = make_stage(tmp_path / "stage", interpreter)
    shutil.copy(program, mounts.src / "draw")
    return StageRunner(sandbox=sandbox, mounts=mounts)


def output(stage: StageRunner, *argv: str, **more: str) -> str:
    ran = stage.run(*argv, environment=variables(**more))
    assert ran.exit_code == 0, ran.output
    return ran.output


def without_library(stage: StageRunner, folder: Path) -> StageRunner:
    """The same stage, of a modelbuild that was installed without a compiler."""
    runtime = folder / "runtime"
    shutil.copytree(RUNTIME, runtime, ignore=shutil.ignore_patterns("preload-*"))
    return replace(stage, mounts=replace(stage.mounts, runtime=runtime))


def test_compiled_programs_draw_the_same_in_every_run(stage: StageRunner) -> None:
    first = output(stage, "./draw")
    drawn = [line.split()[1] for line in first.splitlines()]
    assert len(drawn) == len(set(drawn)) == 3 * 8, "each way and each process draws its own"
    assert output(stage, "./draw") == first


def test_another_seed_draws_other_values(stage: StageRunner) -> None:
    one = output(stage, "./draw").split()[1::2]
    other = output(stage, "./draw", MODELBUILD_SEED="43").split()[1::2]
    assert not set(one) & set(other)


def test_without_the_library_every_one_of_them_differs(stage: StageRunner, tmp_path: Path) -> None:
    plain = without_library(stage, tmp_path)
    one, other = (output(plain, "./draw").split()[1::2] for _ in range(2))
    assert not set(one) & set(other)


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_programs_that_one_shell_starts_have_streams_of_their_own(
    stage: StageRunner, shell: str
) -> None:
    script = "for i in 1 2; do ./draw; (./draw; ./draw) ; ./draw < /dev/null | cat; done; ./draw"
    first = output(stage, shell, "-c", script)
    drawn = first.split()[1::2]
    assert len(drawn) == len(set(drawn)) == 9 * 3 * 8
    assert output(stage, shell, "-c", script) == first


def test_a_shell_that_becomes_its_command_leaves_it_the_first_place(stage: StageRunner) -> None:
    assert output(stage, "sh", "-c", "exec ./draw") == output(stage, "./draw")


def test_what_the_shell_reads_from_the_device_is_the_same(stage: StageRunner) -> None:
    script = "head -c 8 /dev/urandom | od -x; tr -dc a-z < /dev/urandom | head -c 8"
    assert output(stage, "sh", "-c", script) == output(stage, "sh", "-c", script)


def test_libraries_see_as_many_processors_as_the_recipe_has_threads(stage: StageRunner) -> None:
    for count in ("1", "5"):
        found = output(stage, "./draw", "processors", MODELBUILD_THREADS=count)
        assert found.split() == [count] * 6
        assert output(stage, "nproc", MODELBUILD_THREADS=count) == f"{count}\n"


@pytest.mark.parametrize("flags", [("-I",), ("-E",), ("-S",)])
def test_python_hashes_alike_even_where_it_ignores_its_variables(
    stage: StageRunner, flags: tuple[str, ...]
) -> None:
    code = "import random; print(hash('a'), random.random(), list({'a', 'b', 'c', 'd'}))"
    assert output(stage, "python", *flags, "-c", code) == output(
        stage, "python", *flags, "-c", code
    )


def test_without_a_seed_it_changes_nothing(stage: StageRunner) -> None:
    runs = [stage.run("./draw", environment=VARIABLES).output for _ in range(2)]
    assert runs[0] != runs[1]


def test_many_threads_draw_without_a_repetition(stage: StageRunner) -> None:
    code = """
import ctypes, threading
libc, drawn = ctypes.CDLL(None), []
def draw():
    to = ctypes.create_string_buffer(8 * 2000)
    for each in range(2000):
        libc.getrandom(ctypes.byref(to, 8 * each), 8, 0)
    drawn.extend(to.raw[at:at + 8] for at in range(0, len(to), 8))
threads = [threading.Thread(target=draw) for _ in range(8)]
[each.start() for each in threads], [each.join() for each in threads]
print(len(set(drawn)))
"""
    assert output(stage, "python", "-c", code) == "16000\n"


# Where it is absent


def test_a_build_without_it_is_of_another_class_and_says_so(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built() -> tuple[str, list[str]]:
        modelbuild.build(tiny.root / "recipe.toml")
        files = (tmp_path / "store" / "realisations").rglob("*.json")
        record = json.loads(max(files, key=lambda file: file.stat().st_mtime_ns).read_text())
        return record["record"]["facts"]["preload"], record["record"]["notes"]

    assert built() == ("present", [])
    folder = tmp_path / "package"
    shutil.copytree(RUNTIME, folder / "v1", ignore=shutil.ignore_patterns("preload-*"))
    monkeypatch.setattr(shipped_runtime, "_FOLDER", folder)
    tiny.replace("recipe.toml", "seed = 7", "seed = 8")
    note = f"modelbuild was installed without a C compiler: {WITHOUT_PRELOAD}"
    assert built() == ("absent", [note])


def test_doctor_says_what_is_not_pinned_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> tuple[bool, str, str | None]:
        for each in examine(tmp_path).findings:
            if each.name == "preload library":
                return each.ok, each.found, each.remedy
        raise AssertionError

    assert found() == (True, "can be loaded", None)
    folder = tmp_path / "package"
    shutil.copytree(RUNTIME, folder / "v1")
    monkeypatch.setattr(shipped_runtime, "_FOLDER", folder)
    preload_library(folder / "v1").write_bytes(b"not a library")
    ok, said, remedy = found()
    assert (ok, remedy) == (False, "Install modelbuild again, on this machine")
    assert "cannot be preloaded" in said
    preload_library(folder / "v1").unlink()
    assert found() == (
        True,
        f"not there: {WITHOUT_PRELOAD}",
        "Install a C compiler, then modelbuild again: it is built with the package",
    )


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(("compiler", "tag"), [("", "linux_x86_64"), ("/bin/false", "any")])
def test_the_wheel_holds_the_library_where_there_is_a_compiler(
    tmp_path: Path, compiler: str, tag: str
) -> None:
    copy = tmp_path / "source"
    unwanted = shutil.ignore_patterns(".venv", ".git", "*_cache", "preload-*")
    shutil.copytree(ROOT, copy, ignore=unwanted)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, copy]
    subprocess.run(command, check=True, env={**os.environ, "CC": compiler}, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith(f"-py3-none-{tag}.whl")
    names = [name for name in zipfile.ZipFile(wheel).namelist() if "preload-" in name]
    expected = [f"modelbuild/runtime/v1/{preload_library().name}"]
    assert names == (expected if tag != "any" else [])
