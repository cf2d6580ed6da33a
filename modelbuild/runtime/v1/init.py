"""The first process of a stage: starts the command, reaps everything, and reports.

    python -I -S init.py RESULT PARENT PROCESSORS TERMINAL COUNT ENVIRONMENT... COMMAND...

1. Shut out the command: it can neither trace this process nor reach its descriptors.
2. Say on descriptor RESULT that the sandbox stands; whoever waits there may be gone by now.
3. Start the command with fixed limits, umask, processors and addresses.
4. Reap whatever ends, pass signals on, and measure the memory of the whole process tree.
5. When the command has ended, give what is left a moment, then kill it.
6. Write the result to RESULT, as JSON.

PARENT is the process to die with; 0 in a PID namespace, where nothing outlives this process.
Imports cost every stage time, and the interpreter may be any that a recipe names: 3.8 or later.
"""

from __future__ import annotations

# `signal` itself makes enumerations, which takes as long as everything else here.
import _signal as signal  # type: ignore[import-not-found]
import ctypes
import os
import resource
import sys
import time

NAME = "modelbuild"
STACK_BYTES = 8 << 20
OPEN_FILES = 65536
GRACE_SECONDS = 0.5
"""Helpers of multiprocessing outlive their parent by milliseconds; a daemon stays."""
MOST_REPORTED = 20
LONGEST_COMMAND_LINE = 200
"""The result must fit into a pipe that nobody reads while the command's output is streamed."""
KILL = signal.SIGUSR1
"""Sent by modelbuild, and by the kernel when modelbuild dies: everything ends now."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WATCHED = (signal.SIGCHLD, KILL, *FORWARDED)

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
ADDR_NO_RANDOMIZE = 0x0040000
CAPABILITIES = 64
"""More than there are; the kernel ignores the others."""

FIRST_SAMPLE_SECONDS = 0.02
SAMPLE_SECONDS = 0.1
FREE_COST_SECONDS = 0.03
ELAPSED_PER_COST = 300
"""Beyond the free seconds, sampling costs one part in so many of one processor."""

PAGE_BYTES = resource.getpagesize()
libc = ctypes.CDLL(None)


class Job:
    """What the arguments say."""

    def __init__(self, arguments: list[str]) -> None:
        self.result = int(arguments[0])
        self.parent = int(arguments[1])
        self.processors = [int(number) for number in arguments[2].split(",") if number]
        self.terminal = arguments[3] == "terminal"
        count = int(arguments[4])
        pairs = (item.partition("=") for item in arguments[5 : 5 + count])
        self.environment = {name: value for name, _, value in pairs}
        self.command = arguments[5 + count :]


class Ended:
    """How the command ended."""

    def __init__(self, status: int, seconds: float) -> None:
        self.exit_code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        self.seconds = seconds


class Supervisor:
    """Watches over the command and everything that it started."""

    def __init__(self, child: int, randomisation_off: bool) -> None:
        self.child = child
        self.randomisation_off = randomisation_off
        self.started = time.monotonic()
        self.peak = 0
        self.cost = 0.0
        self.sample_at = self.started + FIRST_SAMPLE_SECONDS

    def wait(self) -> Ended:
        """Until the command has ended."""
        ended = None
        while ended is None:
            pause = self.sample_at - time.monotonic()
            received = signal.sigtimedwait(WATCHED, pause) if pause > 0 else None
            if received is None:
                self.sample()
            elif received.si_signo == signal.SIGCHLD:
                ended = self.reap()
            elif received.si_signo == KILL:
                kill_tree()
            else:
                self.forward(received.si_signo)
        return ended

    def reap(self) -> Ended | None:
        ended = None
        for pid, status in ended_children():
            if pid == self.child:
                ended = Ended(status, time.monotonic() - self.started)
        return ended

    def forward(self, number: int) -> None:
        """To the command's process group, as a terminal would."""
        try:
            os.killpg(self.child, number)
        except ProcessLookupError:
            os.kill(self.child, number)

    def sample(self) -> None:
        began = time.process_time()
        self.peak = max(self.peak, sum(memory_bytes(pid) for pid in tree()))
        self.cost += time.process_time() - began
        affordable = self.started + (self.cost - FREE_COST_SECONDS) * ELAPSED_PER_COST
        self.sample_at = max(time.monotonic() + SAMPLE_SECONDS, affordable)

    def finish(self) -> list[str]:
        """Leave no process; the command lines of those that had to be killed."""
        deadline = time.monotonic() + GRACE_SECONDS
        while not all_reaped():
            pause = deadline - time.monotonic()
            if pause <= 0 or self.told_to_kill(pause):
                break
        left = [command_line(pid) for pid in tree()][:MOST_REPORTED]
        while not all_reaped():
            kill_tree()
            signal.sigtimedwait([signal.SIGCHLD], 0.05)
        return left

    def told_to_kill(self, pause: float) -> bool:
        received = signal.sigtimedwait([signal.SIGCHLD, KILL], pause)
        return received is not None and received.si_signo == KILL


def ended_children() -> list[tuple[int, int]]:
    """Reap what has ended: (process, status) of each."""
    ended: list[tuple[int, int]] = []
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return ended
            ended.append((pid, status))
    except ChildProcessError:
        return ended


def all_reaped() -> bool:
    ended_children()
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def tree() -> list[int]:
    """Every living process that descends from this one."""
    children: dict[int, list[int]] = {}
    ended = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            # The fields follow the command's name, which may itself hold brackets and spaces.
            fields = contents(f"/proc/{name}/stat").rpartition(b")")[2].split()
            if len(fields) > 1:
                children.setdefault(int(fields[1]), []).append(int(name))
                if fields[0] in (b"Z", b"X"):
                    ended.add(int(name))
    found = children.get(os.getpid(), [])
    for pid in found:
        found += children.get(pid, [])
    return [pid for pid in found if pid not in ended]


def kill_tree() -> None:
    """Stop everything first, so that nothing can start more meanwhile."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in tree():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def memory_bytes(pid: int) -> int:
    """The proportional share of a process: what several share is counted once in all."""
    for line in contents(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    resident = contents(f"/proc/{pid}/statm").split()
    return int(resident[1]) * PAGE_BYTES if resident else 0


def command_line(pid: int) -> str:
    words = contents(f"/proc/{pid}/cmdline") or contents(f"/proc/{pid}/comm")
    return words.replace(b"\0", b" ").decode(errors="replace").strip()[:LONGEST_COMMAND_LINE]


def contents(path: str) -> bytes:
    """Of a file in /proc; empty when its process has gone meanwhile or keeps it to itself."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def foreign_libraries() -> list[str]:
    """A library of another Python, which the loader found outside of this interpreter's folder."""
    home = os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))
    with open("/proc/self/maps", "rb") as maps:
        lines = [line for line in maps if b"libpython" in line]
    mapped = {os.fsdecode(line.split(None, 5)[-1].strip()) for line in lines}
    return sorted(path for path in mapped if not path.startswith(home + "/"))


def shut_out(result: int) -> None:
    """Step 1. An undumpable process can't be traced, nor its descriptors opened through /proc."""
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError:
                continue  # the descriptor of the listing itself
    os.set_inheritable(result, False)
    signal.pthread_sigmask(signal.SIG_SETMASK, WATCHED)


def die_with(parent: int) -> None:
    """Adopt what loses its parent, and be told when `parent` dies."""
    if parent:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(PR_SET_PDEATHSIG, int(KILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def start(job: Job) -> int:
    """Step 3. The command's process."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        if job.terminal:
            take_terminal()
        drop_capabilities()
        fix_limits()
        if job.processors:
            os.sched_setaffinity(0, job.processors)
        fix_signals()
        os.execvpe(job.command[0], job.command, job.environment)  # noqa: S606 - argv is a list
    except OSError as error:
        message = f"{NAME}: cannot run '{job.command[0]}': {error.strerror}\n"
        os.write(2, message.encode(errors="surrogateescape"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)
    finally:
        os._exit(126)


def drop_capabilities() -> None:
    """Root without namespaces has them; with them it could reach this process's descriptors."""
    for number in range(CAPABILITIES):
        libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)


def take_terminal() -> None:
    """Make the terminal on stdin this session's own, for job control."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def fix_signals() -> None:
    """Python ignores some; whoever started modelbuild may ignore or block others."""
    for number in range(1, 32):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def fix_limits() -> None:
    os.umask(0o022)
    fix_limit(resource.RLIMIT_STACK, STACK_BYTES)
    fix_limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE):
        fix_limit(kind, resource.RLIM_INFINITY)


def fix_limit(kind: int, wanted: int) -> None:
    """As near to `wanted` as the host's hard limit lets."""
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        wanted = hard if wanted == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (wanted, hard))


def report(descriptor: int, ended: Ended, supervisor: Supervisor, left: list[str]) -> None:
    """Step 6. `json` is slow to import, and needed only where there are strings."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    numbers = {
        "exit_code": ended.exit_code,
        "wall_seconds": ended.seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_bytes": max(supervisor.peak, usage.ru_maxrss * 1024),
    }
    fields = [f'"{name}": {number!r}' for name, number in numbers.items()]
    off = "true" if supervisor.randomisation_off else "false"
    fields.append(f'"address_randomisation_off": {off}')
    fields.append('"left_running": ' + strings(left))
    os.write(descriptor, ("{" + ", ".join(fields) + "}").encode())


def strings(items: list[str]) -> str:
    if not items:
        return "[]"
    import json

    return json.dumps(items)


def main() -> None:
    job = Job(sys.argv[1:])
    foreign = foreign_libraries()
    shut_out(job.result)
    die_with(job.parent)
    os.write(job.result, b"\n")
    if foreign:
        os.write(job.result, ('{"foreign_libraries": ' + strings(foreign) + "}").encode())
        return
    randomisation_off = libc.personality(ADDR_NO_RANDOMIZE) >= 0  # a container may refuse it
    supervisor = Supervisor(start(job), randomisation_off)
    ended = supervisor.wait()
    left = supervisor.finish()
    report(job.result, ended, supervisor, left)


if __name__ == "__main__":
    main()
