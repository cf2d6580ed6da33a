"""Pins what varies from run to run, in every Python process of a stage, before the user's code.

One `.pth` line of the environment runs this file; nothing in it can be imported by name. It does
nothing outside a stage, and ends the process where it can't do its work. It reads the variables
MODELBUILD_SEED, MODELBUILD_THREADS, MODELBUILD_MKL and MODELBUILD_ALLOW.

1. Random bytes come from one stream for each process, keyed by the seed and by the process's
   lineage: `0` for the first, `0.2` for its third child, `0.r1` for the second rank of torchrun.
   One constant stream would make siblings draw the same.
2. Listings of folders are sorted: otherwise their order is the file system's.
3. Processors are as many as the recipe has threads.
4. `random`, `numpy` and `torch` are pinned when the script imports them (`pins.py`); none is
   imported here.

A script that seeds everything itself computes what it computes without this file. Every process
of a stage pays for it at its start, hence no import beyond what Python has loaded already.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # the real one takes a millisecond to import
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

NAME = "modelbuild_bootstrap"
LINEAGE = "MODELBUILD_LINEAGE"
FIRST = "0"


class Lineage:
    """The process's place in the tree of the stage's processes, and its stream of random bytes.

    The variable MODELBUILD_LINEAGE holds what the next child will be, so that a child inherits
    its own place however it is started. Threads that start children at the same time may swap
    their places. Each thread has a stream of its own, by its name: some draw behind a script's
    back, such as those that pass a data loader's tensors on.
    """

    recording: Any = None
    """Of a step's operations, in the runs of `modelbuild verify --explain`."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        place = os.environ.get(LINEAGE, FIRST)
        self.is_rank = "RANK" in os.environ and ".r" not in place and place != FIRST
        if self.is_rank:
            place = f"{place.rpartition('.')[0]}.r{os.environ['RANK']}"
        self.enter(place)

    def enter(self, place: str) -> None:
        self.place = place
        self.streams: dict[str, Any] = {}
        self.children = -1
        self.next_child()

    def next_child(self) -> None:
        self.children += 1
        os.environ[LINEAGE] = f"{self.place}.{self.children}"

    def forked(self) -> None:
        """In a child, after a fork."""
        self.is_rank = False
        self.enter(f"{self.place}.{self.children}")

    def random_bytes(self, size: int, flags: int = 0) -> bytes:
        """Takes what `os.urandom` and `os.getrandom` take, and gives the same in every run."""
        thread = other_thread()
        stream = self.streams.get(thread)
        if stream is None:
            from _random import Random  # the generator alone: all of `random` takes 5 ms

            key = f"{self.seed} {self.place}{thread}"
            stream = self.streams[thread] = Random(int.from_bytes(key.encode(), "big"))
        drawn: int = stream.getrandbits(8 * size)
        return drawn.to_bytes(size, "little")

    def starting_seed(self) -> int:
        """For a generator that takes 32 bits: in the first process, the recipe's own.

        In every rank too, as scripts seed them: models start alike, data is split by rank.
        """
        if self.place == FIRST or self.is_rank:
            return self.seed
        return int.from_bytes(self.random_bytes(4), "little")


def other_thread() -> str:
    """The name of the thread, if it is not the main one; Python numbers them as they are made."""
    threading = sys.modules.get("threading")
    if threading is None:
        return ""
    thread = threading.current_thread()
    return "" if thread is threading.main_thread() else f" {thread.name}"


def pin_random_bytes(lineage: Lineage) -> None:
    os.urandom = os.getrandom = lineage.random_bytes
    os.register_at_fork(after_in_parent=lineage.next_child, after_in_child=lineage.forked)
    for name in ("system", "posix_spawn", "posix_spawnp"):
        setattr(os, name, _counted(getattr(os, name), lineage))


def _counted(start: Callable[..., Any], lineage: Lineage) -> Callable[..., Any]:
    """`start`, which starts a child without a fork that Python sees."""

    def start_child(*args: Any, **kwargs: Any) -> Any:
        try:
            return start(*args, **kwargs)
        finally:
            lineage.next_child()

    start_child.__name__, start_child.__doc__ = start.__name__, start.__doc__
    return start_child


def pin_listings() -> None:
    plain_listdir, plain_scandir = os.listdir, os.scandir

    def listdir(path: Any = None) -> list[Any]:
        return sorted(plain_listdir(path))

    class scandir:  # noqa: N801
        """The entries of a folder, sorted by name."""

        def __init__(self, path: Any = None) -> None:
            with plain_scandir(path) as entries:
                self._entries = iter(sorted(entries, key=lambda entry: entry.name))

        def __iter__(self) -> scandir:
            return self

        def __next__(self) -> Any:
            return next(self._entries)

        def __enter__(self) -> scandir:
            return self

        def __exit__(self, *error: object) -> None:
            self.close()

        def close(self) -> None:
            self._entries = iter(())

    _replace(os, "listdir", listdir)
    _replace(os, "scandir", scandir)
    # `shutil.rmtree` asks whether they take a descriptor, before it dares to follow one.
    os.supports_fd.update((listdir, scandir))


def pin_processors(threads: int) -> None:
    plain_affinity = os.sched_getaffinity

    def cpu_count() -> int:
        return threads

    def sched_getaffinity(pid: int) -> set[int]:
        return set(range(threads)) if pid in (0, os.getpid()) else plain_affinity(pid)

    _replace(os, "cpu_count", cpu_count)
    _replace(os, "sched_getaffinity", sched_getaffinity)
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        _replace(os, "process_cpu_count", cpu_count)


def pin_rank_to_processors(threads: int) -> None:
    """A rank of torchrun, on processors of its own where the stage has enough for all ranks."""
    rank, ranks = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) >= threads * ranks:
        os.sched_setaffinity(0, allowed[rank * threads : (rank + 1) * threads])


def _replace(module: ModuleType, name: str, new: Any) -> None:
    setattr(module, name, new)


PINNED = frozenset(
    (
        *("random", "numpy", "numpy.random", "subprocess", "multiprocessing.util", "torch"),
        *("jaxlib", "sklearn.base", "xgboost.core", "lightgbm.basic"),
    )
)
_loaded: dict[str, dict[str, Any]] = {}


def pin(module: ModuleType, load: Callable[[], None], lineage: Lineage) -> None:
    """Load one of PINNED, and pin it."""
    beside("pins")["PINS"][module.__name__](module, load, lineage)


def beside(name: str) -> dict[str, Any]:
    """What another file of this folder defines; read once, when it is needed."""
    if name not in _loaded:
        path = f"{os.path.dirname(__file__)}/{name}.py"
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec")
        defined = {"__name__": f"modelbuild_{name}", "__file__": path, "beside": beside}
        exec(code, defined)  # noqa: S102
        _loaded[name] = defined  # complete, in case another thread looks
    return _loaded[name]


class Importer:
    """Finds the modules in PINNED as Python does, and has each pinned while it is loaded."""

    def __init__(self, lineage: Lineage) -> None:
        self.lineage = lineage

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in PINNED:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                self._pin_when_loaded(spec.loader)
                return spec
        return None

    def _pin_when_loaded(self, loader: Any) -> None:
        plain_exec = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            pin(module, lambda: plain_exec(module), self.lineage)

        loader.exec_module = exec_module


def main() -> None:
    lineage = Lineage(int(os.environ["MODELBUILD_SEED"]))
    pin_random_bytes(lineage)
    pin_listings()
    threads = int(os.environ["MODELBUILD_THREADS"])
    if lineage.is_rank and "LOCAL_WORLD_SIZE" in os.environ:
        pin_rank_to_processors(threads)
    pin_processors(threads)
    explain(lineage)
    for name in PINNED.intersection(sys.modules):  # another .pth file came first
        pin(sys.modules[name], lambda: None, lineage)
    sys.meta_path.insert(0, Importer(lineage))


def explain(lineage: Lineage) -> None:
    """In the runs of `modelbuild verify --explain`: prepare to record a step's operations."""
    try:
        path = os.environ.get("MODELBUILD_ROOT", "/build") + "/trace/request.json"
        with open(path, "rb") as file:
            request = file.read()
    except OSError:
        return
    if b'"explain"' in request:  # to parse it takes a millisecond
        lineage.recording = beside("surroundings")["prepare"](request, lineage)


if "MODELBUILD_SEED" in os.environ and NAME not in sys.modules:
    sys.modules[NAME] = None  # type: ignore[assignment]  # done, and not to be imported
    try:
        main()
    except Exception as error:
        # `site` would report it and go on, with nothing pinned.
        os.write(2, f"modelbuild: this Python can't be made deterministic: {error!r}\n".encode())
        os._exit(70)
