"""How each module is pinned, while it is imported: loaded with the first of them.

A pin takes the module, the function that loads it, and the process's lineage.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Lineage(Protocol):
        """That of `bootstrap.py`."""

        recording: Any

        def next_child(self) -> None: ...
        def starting_seed(self) -> int: ...

    def beside(name: str) -> dict[str, Any]:
        """That of `bootstrap.py`, which puts it here."""
        ...


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
    import _posixsubprocess

    starter: Any = _posixsubprocess
    if not isinstance(starter.fork_exec, _Placing):
        starter.fork_exec = _Placing(starter.fork_exec, lineage)
    if hasattr(module, "_fork_exec"):
        module._fork_exec = starter.fork_exec


class _Placing:
    """`fork_exec`, with the bootstrap's variables added where a script passes its own."""

    NAMES = (
        *("MODELBUILD_SEED", "MODELBUILD_THREADS", "MODELBUILD_MKL", "MODELBUILD_ALLOW"),
        *("MODELBUILD_ROOT", "MODELBUILD_LINEAGE"),
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
    beside("step_hooks")["install"](module, lineage)
    if lineage.recording is not None:
        beside("operations")["record"](module, lineage.recording)


def record_fits(module: Any, load: Callable[[], None], lineage: Lineage) -> None:
    """Nothing is pinned; scikit-learn draws from numpy's generator."""
    load()
    if hasattr(module, "_fit_context"):
        beside("fits")["install"](module, lineage)


def record_xgboost(module: Any, load: Callable[[], None], lineage: Lineage) -> None:
    """Nothing is pinned; it draws from generators of its own, with a constant seed."""
    load()
    beside("rounds")["install"](module, lineage, "XGBoost")


def record_lightgbm(module: Any, load: Callable[[], None], lineage: Lineage) -> None:
    """As XGBoost."""
    load()
    beside("rounds")["install"](module, lineage, "LightGBM")


XLA_CAPS = {"x86-64-v2": "SSE4_2", "x86-64-v3": "AVX2", "x86-64-v4": "AVX512"}


def pin_jaxlib(module: Any, load: Callable[[], None], _: Lineage) -> None:
    """XLA's instruction set: it reads the flag at its first computation.

    It ends the process at a flag that it does not know, so jaxlib must be new enough. The recipe's
    level is in the variable for Inductor, in the words of the recipe.
    """
    load()
    cap = XLA_CAPS.get(os.environ.get("TORCHINDUCTOR_CPP_MARCH", ""))
    major, minor = module.__version__.split(".")[:2]
    flags = os.environ.get("XLA_FLAGS", "")
    if cap and (int(major), int(minor)) >= (0, 5) and "xla_cpu_max_isa" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_max_isa={cap}".strip()


PINS = {
    "random": pin_random,
    "numpy": pin_numpy,
    "numpy.random": pin_numpy_random,
    "subprocess": pin_subprocess,
    "multiprocessing.util": pin_subprocess,
    "torch": pin_torch,
    "jaxlib": pin_jaxlib,
    "sklearn.base": record_fits,
    "xgboost.core": record_xgboost,
    "lightgbm.basic": record_lightgbm,
}
