"""Python's `math`, which is the host's libm, and numpy.

Inputs are whole numbers divided by a power of two, the same everywhere whatever a CPU does.
"""

from __future__ import annotations

import math
import random
import struct
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from digests import Probe, show


def libm() -> Iterator[Probe]:
    """The host's, through Python's `math`: 20,000 arguments a function."""
    source = random.Random(1)
    positive = [source.getrandbits(40) / 2**36 + 2**-40 for _ in range(20_000)]
    unit = [source.getrandbits(40) / 2**40 for _ in range(20_000)]
    names = "exp exp2 expm1 log log2 log10 log1p sqrt cbrt sin cos tan sinh cosh tanh atan asinh"
    for name in f"{names} erf erfc lgamma gamma".split():
        if hasattr(math, name):  # cbrt and exp2 are new in Python 3.11
            yield name, partial(_mapped, getattr(math, name), positive)
    for name in ("asin", "acos", "atanh"):
        yield name, partial(_mapped, getattr(math, name), unit[:-1])
    for name in ("pow", "atan2", "fmod", "hypot"):
        yield name, partial(_mapped, getattr(math, name), positive, unit)
    yield "fsum", lambda: _doubles([math.fsum(positive)])
    yield "sum", lambda: _doubles([sum(positive)])


def _mapped(function: Callable[..., float], *arguments: list[float]) -> bytes:
    return _doubles(map(function, *arguments))


def _doubles(values: Any) -> bytes:
    found = list(values)
    return struct.pack(f"{len(found)}d", *found)


def numpy() -> Iterator[Probe]:
    generator = np.random.Generator(np.random.PCG64(1))
    whole = generator.integers(1, 2**22, 20_011)
    for kind in (np.float32, np.float64):
        bits = f"float{np.dtype(kind).itemsize * 8}"
        x = (whole / 2**19).astype(kind)
        names = "exp exp2 expm1 log log2 log10 log1p sqrt cbrt sin cos tan sinh cosh tanh arctan"
        for name in f"{names} arcsinh reciprocal".split():
            yield f"{name} {bits}", partial(getattr(np, name), x)
        for name in ("arcsin", "arccos", "arctanh"):
            yield f"{name} {bits}", partial(getattr(np, name), x / 9)
        for name in ("power", "arctan2", "hypot", "fmod"):
            yield f"{name} {bits}", partial(getattr(np, name), x, x[::-1] / 4)
        for name in ("sum", "prod", "mean", "std", "cumsum", "sort", "argsort", "median"):
            yield f"{name} {bits}", partial(getattr(np, name), x)
        yield f"partition {bits}", lambda x=x: np.partition(x, 5000)
        yield from _numpy_linear(bits, x)
    for name in ("normal", "standard_exponential", "gamma", "permutation", "random"):
        yield f"random {name}", lambda name=name: _drawn(name)
    yield "RandomState randn", lambda: np.random.RandomState(1).randn(1001)
    yield "fft", lambda: np.fft.fft((whole / 2**19)[:1000]).view(np.float64)
    yield "einsum", lambda: np.einsum("ij,jk", *_square(whole / 2**19))
    yield "sort int64", lambda: np.sort(whole)


def _drawn(name: str) -> Any:
    draw = getattr(np.random.default_rng(1), name)
    if name == "permutation":
        return draw(1001)
    return draw(2.5, size=1001) if name == "gamma" else draw(size=1001)


def _square(x: Any) -> tuple[Any, Any]:
    return x[:4900].reshape(70, 70) - 4, x[5000:9900].reshape(70, 70) - 4


def _numpy_linear(bits: str, x: Any) -> Iterator[Probe]:
    a, b = _square(x)
    wide = (x[:20_000] - 4).reshape(40, 500)
    yield f"matmul {bits}", lambda: a @ b
    yield f"matmul wide {bits}", lambda: wide @ wide.T
    yield f"matrix-vector {bits}", lambda: wide @ wide[0]
    yield f"dot {bits}", lambda: np.dot(x, x)
    symmetric = a @ a.T
    yield f"eigh {bits}", lambda: np.linalg.eigh(symmetric)[0]
    yield f"svd {bits}", lambda: np.linalg.svd(a)[1]
    yield f"solve {bits}", lambda: np.linalg.solve(symmetric + 999 * np.eye(70, dtype=x.dtype), b)
    yield (
        f"cholesky {bits}",
        lambda: np.linalg.cholesky(symmetric + 999 * np.eye(70, dtype=x.dtype)),
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore", RuntimeWarning)  # a product that overflows
    show({"math": libm, "numpy": numpy})
