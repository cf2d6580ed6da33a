"""What a stage sees, may do and leaves behind, looked at from inside."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sandbox_stage import RUNTIME, VARIABLES, VERSION, StageRunner, make_interpreter, make_stage

from modelbuild.errors import ModelbuildError, UnavailableError
from modelbuild.sandbox.bubblewrap import Bubblewrap
from modelbuild.sandbox.devices import protection
from modelbuild.sandbox.isolation import Isolation, Sandbox
from modelbuild.sandbox.unconfined import Unconfined

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stages run on Linux only")


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("interpreter") / "python"
    yield make_interpreter(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def bubblewrap() -> Bubblewrap:
    sandbox = Bubblewrap()
    try:
        sandbox.check()
    except UnavailableError as error:
        pytest.skip(str(error))
    return sandbox


@pytest.fixture
def full(bubblewrap: Bubblewrap, interpreter: Path, tmp_path: Path) -> StageRunner:
    return StageRunner(sandbox=bubblewrap, mounts=make_stage(tmp_path / "stage", interpreter))


@pytest.fixture
def none(interpreter: Path, tmp_path: Path) -> StageRunner:
    return StageRunner(sandbox=Unconfined(), mounts=make_stage(tmp_path / "stage", interpreter))


@pytest.fixture(params=["full", "none"])
def either(request: pytest.FixtureRequest) -> StageRunner:
    runner = request.getfixturevalue(request.param)
    assert isinstance(runner, StageRunner)
    return runner


def lines(output: str) -> list[str]:
    return output.strip().splitlines()


# What can't be reached


def test_there_is_no_network_but_an_own_loopback(full: StageRunner) -> None:
    code = """
import socket
print(sorted(name for _, name in socket.if_nameindex()))
for address in ("192.0.2.1", "8.8.8.8"):
    try:
        socket.create_connection((address, 53), timeout=2)
    except OSError as error:
        print(error.strerror)
server = socket.create_server(("localhost", 0))
socket.create_connection(server.getsockname())
print("loopback works")
"""
    assert lines(full.python(code).output) == [
        "['lo']",
        "Network is unreachable",
        "Network is unreachable",
        "loopback works",
    ]


def test_the_hosts_loopback_is_another_one(full: StageRunner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))"
        assert "ConnectionRefusedError" in full.python(code).output


def test_abstract_sockets_of_the_host_cannot_be_reached(full: StageRunner) -> None:
    name = f"\0modelbuild-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({name!r})".replace("\0", "")
        assert "ConnectionRefusedError" in full.python(code).output


def test_shared_memory_of_the_host_cannot_be_reached(full: StageRunner) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    key, create, remove = 0x4D420000 + os.getpid() % 0xFFFF, 0o1600, 0
    identifier = libc.shmget(key, 4096, create)
    assert identifier >= 0
    try:
        code = f"import ctypes; print(ctypes.CDLL(None).shmget({key}, 4096, 0o600))"
        assert lines(full.python(code).output) == ["-1"]
    finally:
        libc.shmctl(identifier, remove, None)


def test_no_process_of_the_host_is_seen(full: StageRunner) -> None:
    code = "import os; print(os.getpid(), sorted(n for n in os.listdir('/proc') if n.isdigit()))"
    assert lines(full.python(code).output) == ["2 ['1', '2']"]


def test_no_home_folder_and_no_undeclared_file_is_seen(full: StageRunner, tmp_path: Path) -> None:
    undeclared = tmp_path / "secret.csv"
    undeclared.write_text("1")
    paths = [
        str(undeclared),
        str(Path.home()),
        str(Path(__file__)),
        "/root",
        "/home",
        "/var",
        "/run",
    ]
    code = "import os, sys; print([path for path in sys.argv[1:] if os.path.exists(path)])"
    assert lines(full.python(code, *paths).output) == ["[]"]
    assert lines(full.run("ls", "/").output) == (
        sorted({"build", "dev", "etc", "proc", "sys", "tmp", "usr"} | system_folders())
    )


def system_folders() -> set[str]:
    names = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
    return {name for name in names if Path("/", name).exists()}


def test_what_an_administrator_installed_is_not_seen(full: StageRunner) -> None:
    assert full.run("sh", "-c", "ls -A /usr/local").output == ""


def test_no_variable_is_inherited(either: StageRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELBUILD_TEST_SECRET", "1")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    seen = dict(line.split("=", 1) for line in lines(either.run("env").output))
    added = {"MODELBUILD_ROOT", "TMPDIR", "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "PWD"}
    added.add("LD_PRELOAD")
    if either.sandbox.isolation is Isolation.FULL:
        assert seen == {**VARIABLES, "PWD": "/build/src"} or seen == VARIABLES
    assert set(seen) - set(VARIABLES) <= added


def test_nothing_can_be_written_but_the_output_and_the_private_folders(
    full: StageRunner, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "file.csv").write_text("1")
    mounts = replace(
        full.mounts,
        data={"images": tmp_path / "data", "table/file.csv": tmp_path / "file.csv"},
        stages={"train": tmp_path / "data"},
    )
    code = """
import os
mounts = [line.split() for line in open("/proc/self/mountinfo")]
for place in sorted(fields[4] for fields in mounts if "rw" in fields[5].split(",")):
    print(place)
for folder in ["/", "/build", "/dev", "/etc", "/proc/sys/kernel", "/sys", "/usr", "/usr/local"]:
    try:
        open(folder + "/written", "w")
        print("wrote to", folder)
    except OSError:
        pass
for folder, _, files in os.walk("/proc/sys"):
    for file in files:
        if os.access(os.path.join(folder, file), os.W_OK):
            print("may write", folder, file)
for folder in ("/build/out", "/tmp", "/dev/shm"):
    open(folder + "/written", "w")
"""
    found = set(lines(StageRunner(sandbox=full.sandbox, mounts=mounts).python(code).output))
    devices = {f"/dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero")}
    ours = {"/build/out", "/build/trace", "/dev/pts", "/dev/shm", "/proc", "/tmp"}
    assert found - devices == ours
    assert (full.mounts.out / "written").exists()
    assert list((tmp_path / "data").iterdir()) == []


CHANGE = """
import os, stat

def changes(path):
    # Nothing is changed where it succeeds: the same mode, times and owner are set again.
    status = os.stat(path)
    attempts = {
        "mode": lambda: os.chmod(path, stat.S_IMODE(status.st_mode)),
        "times": lambda: os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns)),
        "owner": lambda: os.chown(path, status.st_uid, status.st_gid),
    }
    for name, attempt in attempts.items():
        try:
            attempt()
            print("changed", name, "of", path)
        except OSError:
            pass
"""


def test_a_stage_changes_no_mode_or_times_of_what_its_user_owns_on_the_host(
    full: StageRunner,
) -> None:
    code = """
own = {os.stat(path).st_dev for path in ("/dev/pts", "/dev/shm", "/tmp", "/build/out")}
places = ["/usr", "/etc/alternatives", "/build", "/build/src", "/build/env", "/sys", "/dev"]
places += ["/proc/" + n for n in os.listdir("/proc") if not n.isdigit()]
places += ["/dev/" + n for n in os.listdir("/dev")]
looked_at = []
for place in places:
    if os.path.islink(place) or os.stat(place).st_dev in own:
        continue
    found = [os.path.join(f, n) for f, _, ns in os.walk(place) for n in ns]
    for path in [place, *(found if place.startswith("/proc/") else [])]:
        if not os.path.islink(path) and os.path.exists(path):
            changes(path)
            looked_at.append(path)
print({"/dev/null", "/dev/tty", "/proc/cpuinfo", "/proc/sys/kernel/ostype"} <= set(looked_at))
for descriptor in range(3):
    if os.isatty(descriptor) or stat.S_ISCHR(os.fstat(descriptor).st_mode):
        changes(descriptor)
"""
    assert lines(full.python(CHANGE + code).output) == ["True"]


def test_devices_are_read_and_written_as_usual(full: StageRunner) -> None:
    code = """
print(open("/dev/null").read() == "", open("/dev/zero", "rb").read(2), os.read(0, 1))
print([len(open(f"/dev/{name}", "rb").read(16)) for name in ("random", "urandom")])
for name in ("null", "zero", "random", "urandom", "full"):
    try:
        with open(f"/dev/{name}", "wb") as device:
            device.write(b"1")
    except OSError as error:
        print(name, error.strerror)
"""
    assert lines(full.python("import os\n" + code).output) == [
        "True b'\\x00\\x00' b''",
        "[16, 16]",
        "full No space left on device",
    ]


def test_a_thread_is_given_a_name_by_another(full: StageRunner) -> None:
    """As CUDA does when it starts: without it, it stops."""
    code = """
import threading
thread = threading.Thread(target=threading.Event().wait, daemon=True)
thread.start()
with open(f"/proc/self/task/{thread.native_id}/comm", "w") as name:
    name.write("named")
print(open(f"/proc/self/task/{thread.native_id}/comm").read())
"""
    assert lines(full.python(code).output) == ["named"]


def test_no_namespace_is_made_inside(full: StageRunner) -> None:
    """In one, cgroups could be mounted, whose files the host's root owns."""
    code = """
import ctypes
print(ctypes.CDLL(None).unshare(0x10000000))
"""
    assert lines(full.python(code).output) == ["-1"]


CAP_SYS_ADMIN, CAP_SETFCAP = 21, 31
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="others own no device of the host")


def driven_without(capabilities: list[int], command: list[str]) -> str:
    libc, drop_from_bound = ctypes.CDLL(None), 24

    def drop() -> None:
        for number in capabilities:
            libc.prctl(drop_from_bound, number, 0, 0, 0)

    done = subprocess.run(
        command, preexec_fn=drop, capture_output=True, text=True, check=False, timeout=20
    )
    return done.stdout + done.stderr


@as_root
@pytest.mark.usefixtures("bubblewrap")
def test_devices_are_protected_from_the_root_of_a_container(
    tmp_path: Path, interpreter: Path
) -> None:
    code = CHANGE + "changes('/dev/null'); changes(0); print('tried')"
    command = driver("full", tmp_path, interpreter, "streamed", "python", "-c", code)
    assert driven_without([CAP_SYS_ADMIN], command) == "tried\n"


@as_root
@pytest.mark.usefixtures("bubblewrap")
def test_without_protected_devices_nothing_runs(tmp_path: Path, interpreter: Path) -> None:
    command = driver("full", tmp_path, interpreter, "streamed", "touch", "/build/out/ran")
    said = driven_without([CAP_SYS_ADMIN, CAP_SETFCAP], command)
    assert said.endswith(
        "UnavailableError: isolation 'full' can't be had here: "
        "the host's devices can't be protected from root\n"
        "  found: [Errno 1] Operation not permitted\n"
        "Build as another user.\n"
        "Or build without isolation: --isolation none "
        "(recorded; such results never become claims)\n"
    )
    assert not (tmp_path / "driven" / "out" / "ran").exists()


@pytest.mark.usefixtures("bubblewrap")
def test_a_folder_of_devices_is_protected_with_what_is_in_it(tmp_path: Path) -> None:
    """As the driver of GPUs has one; here with a file that stands for a device."""
    device = tmp_path / "nvidia-cap1"
    device.touch()
    protect = protection([str(tmp_path), "/dev/nonesuch"])
    assert protect
    script = f"touch {tmp_path}/new; chmod 666 {device}; ls {tmp_path}"
    done = subprocess.run(
        ["sh", "-c", script], preexec_fn=protect, capture_output=True, text=True, check=True
    )
    assert done.stderr.count("Read-only file system") == 2
    assert done.stdout == "nvidia-cap1\n"
    (tmp_path / "new").touch()  # the host's mounts are as they were


def test_inputs_stay_read_only_whatever_the_stage_tries(full: StageRunner) -> None:
    (full.mounts.src / "train.py").write_text("original")
    script = """
chmod u+w /build/src/train.py; echo changed > /build/src/train.py
mount -o remount,rw,bind /build/src
unshare -Urm sh -c 'mount -o remount,rw,bind /build/src; echo changed > /build/src/train.py'
umount -l /build/src
echo end"""
    assert lines(full.run("sh", "-c", script).output)[-1] == "end"
    assert (full.mounts.src / "train.py").read_text() == "original"


def test_there_are_no_capabilities_and_no_new_privileges(either: StageRunner) -> None:
    status = either.run("grep", "-E", "^(Cap|NoNewPrivs)", "/proc/self/status").output
    values = dict(line.split() for line in lines(status))
    if either.sandbox.isolation is Isolation.NONE:
        del values["CapBnd:"]  # only root can lower this bound; it adds nothing by itself
    assert values.pop("NoNewPrivs:") == "1"
    assert set(values.values()) == {"0000000000000000"}


# What is there


def test_what_programs_expect_is_there(full: StageRunner) -> None:
    code = """
import getpass, os, socket, sys, tempfile
print(getpass.getuser(), os.getuid(), os.getgid(), socket.gethostname())
print(socket.gethostbyname("localhost"), socket.gethostbyname("modelbuild"))
print(os.getcwd(), sys.prefix, sys.base_prefix, tempfile.gettempdir())
print(repr(sys.stdin.read()))
import multiprocessing
print(multiprocessing.get_context("spawn").Queue() is not None, os.path.exists("/dev/shm"))
"""
    assert lines(full.python(code).output) == [
        "modelbuild 1000 1000 modelbuild",
        "127.0.0.1 127.0.0.1",
        "/build/src /build/env /build/python /tmp",
        "''",
        "True True",
    ]


def test_data_and_upstream_stages_are_at_their_places(either: StageRunner, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_text("image")
    (tmp_path / "labels.csv").write_text("label")
    either.mounts = replace(
        either.mounts,
        data={"images": tmp_path / "images", "labels/labels.csv": tmp_path / "labels.csv"},
        stages={"train": tmp_path / "images"},
    )
    found = either.run(
        *("cat", "/build/data/images/a.png", "/build/data/labels/labels.csv"),
        "/build/stages/train/a.png",
    )
    assert found.output == "imagelabelimage"


def test_names_may_be_any_bytes(either: StageRunner, tmp_path: Path) -> None:
    odd = os.fsdecode(b"a b\nc\xff\xe2\x82\xac")
    (tmp_path / odd).mkdir()
    (tmp_path / odd / odd).write_text("1")
    either.mounts = replace(either.mounts, data={"images": tmp_path / odd})
    code = """
import os, sys
folder = os.fsencode(sys.argv[1])
print(os.listdir(folder) == [os.environb[b"ODD"]] == [os.fsencode(sys.argv[2])])
"""
    variables = {**VARIABLES, "ODD": odd}
    found = either.python(code, "/build/data/images", odd, environment=variables)
    assert found.output == "True\n"


def test_as_many_processors_are_told_as_the_recipe_declares(full: StageRunner) -> None:
    code = "import os; print(os.cpu_count(), len(os.sched_getaffinity(0)))"
    assert lines(full.python(code, threads=1).output) == ["1 1"]
    told, allowed = full.python(code, threads=7).output.split()
    assert told == "7"
    assert int(allowed) == min(7, len(os.sched_getaffinity(0)))
    assert lines(full.run("getconf", "_NPROCESSORS_ONLN", threads=3).output) == ["3"]


def test_limits_and_umask_are_fixed_whatever_the_callers_are(either: StageRunner) -> None:
    script = "umask; ulimit -S -s; ulimit -S -c; kill -s PIPE $$"
    before = os.umask(0o077)
    stack = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (4 << 20, stack[1]))
    try:
        found = either.run("sh", "-c", script)
    finally:
        os.umask(before)
        resource.setrlimit(resource.RLIMIT_STACK, stack)
    assert lines(found.output) == ["0022", "8192", "0"]
    assert found.exit_code == -signal.SIGPIPE


def test_addresses_are_the_same_in_every_run(either: StageRunner) -> None:
    runs = [either.run("cat", "/proc/self/maps") for _ in range(2)]
    if not runs[0].outcome.address_randomisation_off:
        pytest.skip("personality is refused here")
    first, second = ([line.split()[0] for line in lines(run.output)] for run in runs)
    assert first == second


def test_a_foreign_libpython_is_refused(
    full: StageRunner, interpreter: Path, tmp_path: Path
) -> None:
    program = Path(os.path.realpath(sys.executable))
    if not list(interpreter.glob("lib/libpython3*.so*")):
        pytest.skip("this Python is not a shared build")
    mounts = replace(full.mounts, interpreter=tmp_path / "python")
    shutil.copytree(interpreter, mounts.interpreter, symlinks=True, copy_function=os.link)
    (mounts.interpreter / "bin" / VERSION).unlink()
    shutil.copy2(program, mounts.interpreter / "bin" / VERSION)
    with pytest.raises(UnavailableError, match=r"^the locked interpreter (runs with|does not)"):
        StageRunner(sandbox=full.sandbox, mounts=mounts).run("true")


# How it ends


def test_exit_codes_and_signals_are_passed_on(either: StageRunner) -> None:
    assert either.run("sh", "-c", "exit 0").exit_code == 0
    assert either.run("sh", "-c", "exit 7").exit_code == 7
    assert either.run("sh", "-c", "kill -SEGV $$").exit_code == -signal.SIGSEGV


def test_a_command_that_is_not_there_is_named(either: StageRunner) -> None:
    found = either.run("nonesuch")
    assert found.exit_code == 127
    assert found.output == "modelbuild: cannot run 'nonesuch': No such file or directory\n"


def test_both_streams_come_as_one_in_order(either: StageRunner) -> None:
    found = either.run("sh", "-c", "echo one; echo two >&2; echo three")
    assert found.output == "one\ntwo\nthree\n"


def test_a_daemon_is_killed_and_reported(either: StageRunner) -> None:
    mark = f"5{os.getpid()}.25"
    found = either.run("sh", "-c", f"setsid sh -c 'sleep {mark} & sleep {mark} & wait' & exit 0")
    assert found.exit_code == 0
    assert sorted(found.outcome.left_running) == [
        f"sh -c sleep {mark} & sleep {mark} & wait",
        f"sleep {mark}",
        f"sleep {mark}",
    ]
    assert processes(mark) == []


def test_a_helper_that_ends_by_itself_is_not_reported(either: StageRunner) -> None:
    found = either.run("sh", "-c", "sleep 0.1 & exit 3")
    assert (found.exit_code, found.outcome.left_running) == (3, ())


def test_a_stage_cannot_forge_its_result(either: StageRunner) -> None:
    code = """
import os, signal
names = ("exit_code", "wall_seconds", "cpu_seconds", "peak_memory_bytes", "left_running")
forged = repr({name: 0 for name in names}).replace("'", '"').encode()
watcher = os.getppid()
for number in range(3, 64):
    for path in (f"/proc/{watcher}/fd/{number}", f"/proc/self/fd/{number}"):
        try:
            os.write(os.open(path, os.O_WRONLY), forged)
            print("opened", path)
        except OSError:
            pass
    try:
        os.write(number, forged)
        print("wrote", number)
    except OSError:
        pass
try:
    open(f"/proc/{watcher}/mem", "r+b")
    print("opened memory")
except OSError:
    pass
import ctypes
print(ctypes.CDLL(None).ptrace(16, watcher, None, None), flush=True)
os.kill(watcher, signal.SIGKILL)
os._exit(3)
"""
    found = either.python(code)
    assert found.output == "-1\n"
    killed = either.sandbox.isolation is Isolation.NONE  # else the first process can't be killed
    assert found.exit_code == (-signal.SIGKILL if killed else 3)


def test_a_full_private_folder_is_an_error_of_the_stage_alone(full: StageRunner) -> None:
    full.sandbox = Bubblewrap(temporary_bytes=1 << 20, shared_memory_bytes=2 << 20)
    fill = "head -c 3M /dev/zero > {}/big; stat -c %s {}/big"
    for folder, size in (("/tmp", 1 << 20), ("/dev/shm", 2 << 20)):
        found = full.run("sh", "-c", fill.replace("{}", folder))
        assert "No space left on device" in found.output
        assert lines(found.output)[-1] == str(size)


def test_private_folders_are_bounded_by_the_machines_memory(full: StageRunner) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    code = "import shutil; print(*(shutil.disk_usage(p).total for p in ('/tmp', '/dev/shm')))"
    temporary, shared = map(int, full.python(code).output.split())
    assert temporary == pytest.approx(memory / 4, rel=0.01)
    assert shared == pytest.approx(memory / 2, rel=0.01)


# What is recorded


HELD = """
import os, time
told, tell = os.pipe()
ended, end = os.pipe()

def hold():
    os.close(end)
    os.write(tell, b".")
    os.read(ended, 1)
    os._exit(0)

def wakes():  # of the first process: it samples, then sleeps
    status = open(f"/proc/{os.getppid()}/status").read()
    return int(status.rpartition("\\nvoluntary_ctxt_switches:")[2].split()[0])

def until_sampled(children):
    for _ in range(children):
        os.read(told, 1)
    enough = wakes() + 3
    while wakes() < enough:
        time.sleep(0.01)
    os.close(end)
    for _ in range(children):
        os.wait()
"""


def test_memory_of_the_whole_tree_is_recorded(either: StageRunner) -> None:
    code = """
if os.fork() == 0 or os.fork() == 0:
    held = b"1" * (100 << 20)
    hold()
until_sampled(2)
"""
    peak = either.python(HELD + code).outcome.peak_memory_bytes
    assert 200 << 20 < peak < 260 << 20


def test_memory_that_processes_share_is_counted_once(either: StageRunner) -> None:
    code = """
held = b"1" * (100 << 20)
if os.fork() == 0 or os.fork() == 0 or os.fork() == 0:
    hold()
until_sampled(3)
"""
    peak = either.python(HELD + code).outcome.peak_memory_bytes
    assert 100 << 20 < peak < 160 << 20


def test_a_short_peak_of_one_process_is_recorded(either: StageRunner) -> None:
    peak = either.python("b'1' * (64 << 20)").outcome.peak_memory_bytes
    assert 64 << 20 < peak < 100 << 20


def test_time_of_the_whole_tree_is_recorded(either: StageRunner) -> None:
    code = """
import os, time
if os.fork() == 0:
    if os.fork() == 0:  # its parent does not wait for it
        end = time.process_time() + 0.3
        while time.process_time() < end: pass
    os._exit(0)
os.wait()
time.sleep(0.1)
end = time.process_time() + 0.2
while time.process_time() < end: pass
"""
    outcome = either.python(code).outcome
    assert outcome.cpu_seconds >= 0.49
    assert outcome.wall_seconds >= 0.3


@pytest.mark.parametrize("level", ["full", "none"])
@pytest.mark.usefixtures("bubblewrap")
def test_a_gigabyte_of_output_is_streamed_in_constant_memory(
    level: str, tmp_path: Path, interpreter: Path
) -> None:
    code = "import os; chunk = b'x' * (1 << 20)\nfor _ in range(1024): os.write(1, chunk)"
    command = driver(level, tmp_path, interpreter, "measured", "python", "-c", code)
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, check=True)
    seconds = time.monotonic() - began
    exit_code, size, grown_kib = map(int, done.stdout.split())
    print(f"{size / seconds / 1e6:.0f} MB a second, {grown_kib} KiB more memory")
    assert (exit_code, size) == (0, 1 << 30)
    assert grown_kib < 32 << 10


# When modelbuild is stopped

DRIVER = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sandbox_stage import StageRunner, make_stage
from modelbuild.sandbox.bubblewrap import Bubblewrap
from modelbuild.sandbox.unconfined import Unconfined

sandbox = {"full": Bubblewrap, "none": Unconfined}[sys.argv[2]]()
runner = StageRunner(sandbox=sandbox, mounts=make_stage(Path(sys.argv[3]), Path(sys.argv[4])))
if sys.argv[5] == "interactive":
    print("ended", runner.run(*sys.argv[6:], interactive=True).exit_code, flush=True)
    sys.exit()
if sys.argv[5] == "measured":
    peak = lambda: int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    sizes = []
    runner.run("true")  # imports what a run needs
    before = peak()
    outcome = runner.stream(lambda chunk: sizes.append(len(chunk)), *sys.argv[6:])
    print(outcome.exit_code, sum(sizes), peak() - before)
    sys.exit()
try:
    runner.stream(lambda chunk: os.write(1, chunk), *sys.argv[6:])
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("interrupted", flush=True)
    sys.exit(130)
"""


def driver(level: str, tmp_path: Path, interpreter: Path, *arguments: str) -> list[str]:
    places = (str(Path(__file__).parent), level, str(tmp_path / "driven"), str(interpreter))
    return [sys.executable, "-c", DRIVER, *places, *arguments]


def processes(mark: str) -> list[str]:
    """Command lines that hold `mark`, once what is ending has ended."""
    deadline = time.monotonic() + 5
    while True:
        found = []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            found += [text] if mark in text and "DRIVER" not in text else []
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


def start_driver(
    level: str, tmp_path: Path, interpreter: Path, mark: str
) -> subprocess.Popen[bytes]:
    stubborn = (
        f"trap '' INT TERM HUP; setsid sleep {mark} & setsid sh -c 'sleep {mark} & sleep {mark}' "
        f"& echo started; sleep {mark}"
    )
    command = driver(level, tmp_path, interpreter, "streamed", "sh", "-c", stubborn)
    process = subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout
    assert process.stdout.readline() == b"started\n"
    return process


@pytest.mark.parametrize("level", ["full", "none"])
@pytest.mark.usefixtures("bubblewrap")
def test_a_killed_build_leaves_no_process(level: str, tmp_path: Path, interpreter: Path) -> None:
    mark = f"6{os.getpid()}.5"
    with start_driver(level, tmp_path, interpreter, mark) as process:
        process.kill()
    assert processes(mark) == []


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("level", ["full", "none"])
@pytest.mark.usefixtures("bubblewrap")
def test_an_interrupted_build_leaves_no_process(
    level: str, times: int, tmp_path: Path, interpreter: Path
) -> None:
    mark = f"7{os.getpid()}.{times}"
    with start_driver(level, tmp_path, interpreter, mark) as process:
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.003)
        process.wait(timeout=10)
        left = [text for text in processes(mark) if "sandbox_stage" not in text]
        assert left == []
        if times == 1:
            assert process.stdout
            assert (process.returncode, process.stdout.read()) == (130, b"interrupted\n")


def test_when_the_interrupt_is_raised_everything_has_ended(either: StageRunner) -> None:
    mark = f"8{os.getpid()}.5"

    def interrupt(_: bytes) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    command = f"setsid sleep {mark} & echo started; sleep {mark}"
    with pytest.raises(KeyboardInterrupt):
        either.stream(interrupt, "sh", "-c", command)
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(mark.encode() in command for command in commands)


def test_an_error_of_whoever_takes_the_output_ends_the_stage(either: StageRunner) -> None:
    mark = f"9{os.getpid()}.5"

    def refuse(_: bytes) -> None:
        raise OSError("the log can't be written")

    with pytest.raises(OSError, match="the log can't be written"):
        either.stream(refuse, "sh", "-c", f"echo started; sleep {mark}")
    assert processes(mark) == []


def test_a_stage_runs_from_a_thread_and_outlives_other_threads(either: StageRunner) -> None:
    threading.Thread(target=lambda: either.run("true")).start()
    codes: list[int] = []
    thread = threading.Thread(
        target=lambda: codes.append(either.run("sh", "-c", "sleep 0.3; exit 4").exit_code)
    )
    thread.start()
    thread.join()
    assert codes == [4]


# `modelbuild shell`


@pytest.mark.parametrize("level", ["full", "none"])
@pytest.mark.usefixtures("bubblewrap")
def test_a_shell_has_a_terminal_of_its_own_with_job_control(
    level: str, tmp_path: Path, interpreter: Path
) -> None:
    mine, its = os.openpty()
    command = driver(level, tmp_path, interpreter, "interactive", "sh", "-i")
    shown = b""

    def expect(text: bytes) -> None:
        nonlocal shown
        while text not in shown:
            assert select.select([mine], [], [], 10)[0], shown
            shown += os.read(mine, 4096)
        shown = shown.partition(text)[2]

    with subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, start_new_session=True
    ) as ran:
        os.close(its)
        os.write(mine, b"test -t 0 && echo terminal-$((1+1))\n")
        expect(b"terminal-2")
        os.write(mine, b"echo be''gun; sleep 100\n")
        expect(b"begun")
        time.sleep(0.2)
        os.write(mine, b"\x03")
        os.write(mine, b"echo code $?; exit 5\n")
        expect(b"code 130")
        expect(b"ended 5")
    os.close(mine)
    assert ran.returncode == 0


@pytest.mark.parametrize("level", ["full", "none"])
@pytest.mark.usefixtures("bubblewrap")
def test_a_shell_ends_with_its_terminal(level: str, tmp_path: Path, interpreter: Path) -> None:
    mine, its = os.openpty()
    mark = f"4{os.getpid()}.5"
    command = driver(
        level, tmp_path, interpreter, "interactive", "sh", "-c", f"echo a; sleep {mark}"
    )
    with subprocess.Popen(
        command, stdin=its, stdout=its, stderr=subprocess.PIPE, start_new_session=True
    ) as ran:
        os.close(its)
        assert os.read(mine, 1) == b"a"
        os.close(mine)
        assert ran.stderr
        assert ran.stderr.read().endswith(b"the shell was ended: its terminal has gone\n")
    assert processes(mark) == []


@pytest.mark.parametrize("level", ["full", "none"])
@pytest.mark.usefixtures("bubblewrap")
def test_a_shell_in_a_pipe_reads_the_pipe(level: str, tmp_path: Path, interpreter: Path) -> None:
    command = driver(level, tmp_path, interpreter, "interactive", "sh")
    done = subprocess.run(
        command, input=b"echo $((40 + 2)) >&2; exit 6\n", capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"ended 6\n", b"42\n")


# When it can't be had


def test_an_input_that_has_gone_is_named(full: StageRunner, tmp_path: Path) -> None:
    mounts = replace(full.mounts, data={"images": tmp_path / "gone"})
    with pytest.raises(ModelbuildError) as caught:
        StageRunner(sandbox=full.sandbox, mounts=mounts).run("true")
    assert str(caught.value) == (
        "cannot set up the sandbox: an input has gone\n"
        f"  bwrap: Can't find source path {tmp_path}/gone: No such file or directory"
    )


def test_without_namespaces_nothing_runs_and_nothing_is_printed(
    full: StageRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = tmp_path / "bwrap"
    refusing.write_text(
        "#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2; exit 1"
    )
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    printed: list[bytes] = []
    with pytest.raises(UnavailableError) as caught:
        full.stream(printed.append, "sh", "-c", "touch /build/out/ran")
    text = str(caught.value)
    assert text.startswith(
        "isolation 'full' can't be had here: bubblewrap can't make its namespaces\n"
    )
    assert "setting up uid map: Permission denied" in text
    assert text.endswith("--isolation none (recorded; such results never become claims)")
    assert printed == []
    assert list(full.mounts.out.iterdir()) == []


# Isolation `none`


def test_the_view_stands_for_build_in_arguments_variables_and_files(none: StageRunner) -> None:
    (none.mounts.src / "train.py").write_text(
        "import json, os, sys\n"
        "print(json.dumps({'argv': sys.argv[1:], 'env': dict(os.environ), 'prefix': sys.prefix,"
        " 'context': json.load(open(os.environ['MODELBUILD_CONTEXT']))}))\n"
    )
    variables = {
        **VARIABLES,
        "MODELBUILD_CONTEXT": "/build/context.json",
        "PYTHONPATH": "/build/src:/build/src/nets",
        "UNTOUCHED": "/home/build/x /builder /var/tmp",
    }
    found = none.run(
        *("python", "train.py", "--data=/build/data/x", "/build/out", "/srv/build/out"),
        environment=variables,
    )
    said = json.loads(found.output)
    root = said["env"]["MODELBUILD_ROOT"]
    assert said["argv"] == [f"--data={root}/data/x", f"{root}/out", "/srv/build/out"]
    assert said["env"]["PYTHONPATH"] == f"{root}/src:{root}/src/nets"
    assert said["env"]["UNTOUCHED"] == "/home/build/x /builder /var/tmp"
    assert said["env"]["HOME"] == f"{root}/tmp"
    assert said["context"] == {"out": f"{root}/out", "lr": 0.1}
    assert said["prefix"] == f"{root}/env"
    assert not Path(root).exists()


def test_scripts_of_the_environment_run_in_the_view(either: StageRunner) -> None:
    assert either.run("greet").output.startswith("hello from /")


def test_what_a_stage_leaves_in_the_view_is_removed_and_its_output_is_kept(
    none: StageRunner, tmp_path: Path
) -> None:
    script = (
        "echo $TMPDIR; echo 1 > /build/out/model; mkdir -p $TMPDIR/a/b; touch $TMPDIR/a/b/c; "
        "chmod 0 $TMPDIR/a/b $TMPDIR/a; ln -s /build/out $TMPDIR/link"
    )
    found = none.run("sh", "-c", script)
    assert found.exit_code == 0
    assert not Path(found.output.strip()).parent.exists()
    assert (none.mounts.out / "model").read_text() == "1\n"


def test_levels_say_what_they_are(bubblewrap: Bubblewrap) -> None:
    levels: list[Sandbox] = [bubblewrap, Unconfined()]
    assert [level.isolation for level in levels] == [Isolation.FULL, Isolation.NONE]
    assert RUNTIME.name == "v1"
