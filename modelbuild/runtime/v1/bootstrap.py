"""Pins what varies from run to run, in every Python process of a stage, before the user's code.

One `.pth` line of the environment runs this file; nothing in it can be imported by name. It does
nothing outside a stage, and ends the process where it can't do its work. It reads the variables
MODELBUILD_SEED, MODELBUILD_THREADS, MODELBUILD_CPU and MODELBUILD_ALLOW.

1. Random bytes come from one stream for each process, keyed by the seed and by the process's
   lineage: `0` for the first, `0.2` for its third child. One constant stream would make siblings
   draw the same.
2. Listings of folders are sorted: otherwise their order is the file system's.
3. Processors are as many as the recipe has threads.
4. `random`, `numpy` and `torch` are pinned when the script imports them; none is imported here.

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
    their places.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.enter(os.environ.get(LINEAGE, FIRST))

    def enter(self, place: str) -> None:
        from _random import Random  # the generator alone: all of `random` takes 5 ms

        self.place = place
        self.stream = Random(int.from_bytes(f"{self.seed} {place}".encode(), "big"))
        self.children = -1
        self.next_child()

    def next_child(self) -> None:
        self.children += 1
        os.environ[LINEAGE] = f"{self.place}.{self.children}"

    def forked(self) -> None:
        """In a child, after a fork."""
        self.enter(f"{self.place}.{self.children}")

    def random_bytes(self, size: int, flags: int = 0) -> bytes:
        """Takes what `os.urandom` and `os.getrandom` take, and gives the same in every run."""
        return self.stream.getrandbits(8 * size).to_bytes(size, "little")

    def starting_seed(self) -> int:
        """For a generator that takes 32 bits: in the first process, the recipe's own."""
        if self.place == FIRST:
            return self.seed
        return int.from_bytes(self.random_bytes(4), "little")


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


def _replace(module: ModuleType, name: str, new: Any) -> None:
    setattr(module, name, new)


def pin_random(module: Any, load: Callable[[], None], lineage: Lineage) -> None:
    """`random`, and generators made without a seed: C seeds them, and never asks `os.urandom`."""
    load()
    plain_seed = module.Random.seed

    def seed(self: Any, a: Any = None, version: int = 2) -> None:
        plain_seed(self, int.from_bytes(os.urandom(32), "big") if a is None else a, version)

    seed.__doc__ = plain_seed.__doc__
    module.Random.seed = seed
    module.seed = module._inst.seed
    module.seed(lineage.starting_seed())
    # Python seeds a forked child from the system; this comes after it.
    os.register_at_fork(after_in_child=module.seed)


def pin_numpy(_: Any, load: Callable[[], None], __: Lineage) -> None:
    """`numpy`, quiet about names in NPY_DISABLE_CPU_FEATURES that another version of it has."""
    import warnings

    about = "During parsing environment variable: 'NPY_DISABLE_CPU_FEATURES'"
    warnings.filterwarnings("ignore", about, ImportWarning)
    load()


def pin_numpy_random(module: Any, load: Callable[[], None], lineage: Lineage) -> None:
    """The old generator; `default_rng()` without a seed takes it from `secrets`."""
    load()
    module.seed(lineage.starting_seed())


def pin_subprocess(module: Any, load: Callable[[], None], lineage: Lineage) -> None:
    """`subprocess` and `multiprocessing`: a child has its place, whatever variables it is given."""
    load()
    import _posixsubprocess as starter

    if not isinstance(starter.fork_exec, _Placing):
        _replace(starter, "fork_exec", _Placing(starter.fork_exec, lineage))
    if hasattr(module, "_fork_exec"):
        module._fork_exec = starter.fork_exec


class _Placing:
    """`fork_exec`, with the variables of this file added where a script passes its own."""

    NAMES = (
        *("MODELBUILD_SEED", "MODELBUILD_THREADS", "MODELBUILD_CPU", "MODELBUILD_ALLOW"),
        *("MODELBUILD_ROOT", LINEAGE),
    )

    def __init__(self, plain: Callable[..., int], lineage: Lineage) -> None:
        self.plain = plain
        self.lineage = lineage

    def __call__(self, *args: Any) -> int:
        before, variables, after = args[:5], args[5], args[6:]
        if variables is not None:
            ours = [name for name in self.NAMES if name in os.environ]
            prefixes = tuple(os.fsencode(f"{name}=") for name in ours)
            variables = [each for each in variables if not each.startswith(prefixes)]
            variables += [os.fsencode(f"{name}={os.environ[name]}") for name in ours]
        try:
            return self.plain(*before, variables, *after)
        finally:
            self.lineage.next_child()


def pin_torch(module: Any, load: Callable[[], None], lineage: Lineage) -> None:
    load()
    vendor = beside("mkl_vendor")["answer_intel"]
    beside("torch_knobs")["pin"](module, lineage.starting_seed(), vendor)


def beside(name: str) -> dict[str, Any]:
    """What another file of this folder defines."""
    path = f"{os.path.dirname(__file__)}/{name}.py"
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    defined = {"__name__": f"modelbuild_{name}", "__file__": path}
    exec(code, defined)  # noqa: S102
    return defined


PINS = {
    "random": pin_random,
    "numpy": pin_numpy,
    "numpy.random": pin_numpy_random,
    "subprocess": pin_subprocess,
    "multiprocessing.util": pin_subprocess,
    "torch": pin_torch,
}


class Importer:
    """Finds the modules in PINS as Python does, and has each pinned while it is loaded."""

    def __init__(self, lineage: Lineage) -> None:
        self.lineage = lineage

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        pin = PINS.get(name)
        if pin is None:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                self._pin_when_loaded(spec.loader, pin)
                return spec
        return None

    def _pin_when_loaded(self, loader: Any, pin: Callable[..., None]) -> None:
        plain_exec = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            pin(module, lambda: plain_exec(module), self.lineage)

        loader.exec_module = exec_module


def main() -> None:
    lineage = Lineage(int(os.environ["MODELBUILD_SEED"]))
    pin_random_bytes(lineage)
    pin_listings()
    pin_processors(int(os.environ["MODELBUILD_THREADS"]))
    for name, pin in PINS.items():
        if name in sys.modules:  # another .pth file came first
            pin(sys.modules[name], lambda: None, lineage)
    sys.meta_path.insert(0, Importer(lineage))


if "MODELBUILD_SEED" in os.environ and NAME not in sys.modules:
    sys.modules[NAME] = None  # type: ignore[assignment]  # done, and not to be imported
    try:
        main()
    except Exception as error:
        # `site` would report it and go on, with nothing pinned.
        os.write(2, f"modelbuild: this Python can't be made deterministic: {error!r}\n".encode())
        os._exit(70)
