"""A digest of what each of some thirty operations gives on this machine, with a recipe's settings.

The build runs this file inside the sandbox, once for a machine and an environment. On one numeric
class, every machine must give the same. Inputs are made from integers: no generator decides. Sizes
are such that libraries split the work among threads, and that all of it takes a second or two.
What the environment has is probed: `math` always, numpy and torch where they are there, torch on
the GPU too where the recipe has one.

Writes one JSON object: `probes`, a digest by name; `failed`, why one could not be had; `threads`,
as each library counts them; `libraries`, the host's own that were loaded, with digests;
`versions`, of what was probed.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    Probe = Callable[[], Iterable[bytes]]

ROOT = os.environ.get("MODELBUILD_ROOT", "/build")


def digest(pieces: Iterable[bytes]) -> str:
    hashed = hashlib.blake2b(digest_size=8)
    for piece in pieces:
        hashed.update(piece)
    return hashed.hexdigest()


def math_probes() -> dict[str, Probe]:
    """The C library's functions, one number at a time."""
    functions = [math.exp, math.log1p, math.sin, math.cos, math.tan, math.tanh, math.sinh]
    functions += [math.erf, math.lgamma, math.atan, math.log]

    def libm() -> Iterator[bytes]:
        for number in range(1, 1500):
            value = number / 64
            results = [function(value) for function in functions] + [math.pow(value, 1.7)]
            yield repr(results).encode()

    return {"libm": libm}


class NumpyProbes:
    def __init__(self, numpy: Any) -> None:
        self.numpy = numpy

    def values(self, *shape: int) -> Any:
        """Float64 numbers from -0.5 to 0.5 that look random."""
        count = math.prod(shape)
        numbers = self.numpy.arange(1, count + 1, dtype=self.numpy.int64)
        return (numbers * 40503 % 65536 / 65536 - 0.5).reshape(shape)

    def probes(self) -> dict[str, Probe]:
        return {f"numpy.{name}": getattr(self, name) for name in ("matmul", "exp", "sum", "svd")}

    def matmul(self) -> Iterator[bytes]:
        for kind in ("float32", "float64"):
            a = self.values(257, 129).astype(kind)
            yield (a @ a.T).tobytes()
            yield (a @ a[0]).tobytes()

    def exp(self) -> Iterator[bytes]:
        for kind in ("float32", "float64"):
            x = self.values(4096).astype(kind)
            for name in ("exp", "log1p", "sin", "tanh"):
                yield getattr(self.numpy, name)(x).tobytes()

    def sum(self) -> Iterator[bytes]:
        x = self.values(100_003).astype("float32")
        yield x.sum().tobytes()
        yield x.std().tobytes()

    def svd(self) -> Iterator[bytes]:
        a = self.values(48, 48)
        linalg = self.numpy.linalg
        yield linalg.svd(a)[1].tobytes()
        yield linalg.eigh(a @ a.T)[1].tobytes()
        yield linalg.solve(a + 48 * self.numpy.eye(48), a[0]).tobytes()


class TorchProbes:
    """On one device. Modules are given their parameters: their own come from the generator."""

    VECTOR = ("exp", "log", "sqrt", "tanh", "erf", "pow")

    def __init__(self, torch: Any, device: str) -> None:
        self.torch = torch
        self.device = device
        self.functional = torch.nn.functional

    def probes(self) -> dict[str, Probe]:
        names = ["matmul", "matmul_f64", "matmul_bf16", "bmm", "linear", "conv"]
        names += ["lstm", "gru", "softmax", "layer_norm", "batch_norm", "attention", "sum"]
        names += ["cumsum", "sort", "adam", "embedding", "svd"]
        found = {name: getattr(self, name) for name in names}
        found.update((name, self._vector(name)) for name in self.VECTOR)
        prefix = "" if self.device == "cpu" else f"{self.device}."
        return {prefix + name: probe for name, probe in found.items()}

    def values(self, *shape: int, step: int = 40503) -> Any:
        """Float32 numbers from -0.5 to 0.5 that look random, to be differentiated by."""
        numbers = self.torch.arange(1, math.prod(shape) + 1, dtype=self.torch.int64)
        x = (numbers * step % 65536).to(self.torch.float32) / 65536 - 0.5
        return x.reshape(shape).to(self.device).requires_grad_()

    def bytes_of(self, *tensors: Any) -> Iterator[bytes]:
        for tensor in tensors:
            here = tensor.detach().cpu().contiguous()
            yield ctypes.string_at(here.data_ptr(), here.numel() * here.element_size())

    def backward(self, y: Any, *inputs: Any) -> Iterator[bytes]:
        """A result, and the gradients of it."""
        weights = self.values(*y.shape, step=30011).detach()
        gradients = self.torch.autograd.grad((y * weights.to(y.dtype)).sum(), inputs)
        return self.bytes_of(y, *gradients)

    def _vector(self, name: str) -> Probe:
        def probe() -> Iterator[bytes]:
            function = getattr(self.torch, name)
            for dtype in (self.torch.float32, self.torch.float64):
                x = (self.values(70_001) + 1).detach().to(dtype)
                yield from self.bytes_of(function(x, 1.7) if name == "pow" else function(x))

        return probe

    def matmul(self) -> Iterator[bytes]:
        a, b = self.values(257, 513), self.values(513, 129)
        return self.backward(a @ b, a, b)

    def matmul_f64(self) -> Iterator[bytes]:
        a = self.values(193, 257).double()
        return self.bytes_of(a @ a.T, a @ a[0])

    def matmul_bf16(self) -> Iterator[bytes]:
        a = self.values(128, 256).detach().to(self.torch.bfloat16)
        return self.bytes_of(a @ a.T)

    def bmm(self) -> Iterator[bytes]:
        a = self.values(9, 65, 33)
        return self.backward(self.torch.bmm(a, a.transpose(1, 2)), a)

    def linear(self) -> Iterator[bytes]:
        x, weight, bias = self.values(37, 65), self.values(129, 65), self.values(129)
        return self.backward(self.functional.linear(x, weight, bias), x, weight, bias)

    def conv(self) -> Iterator[bytes]:
        x, weight, bias = self.values(8, 3, 28, 28), self.values(16, 3, 3, 3), self.values(16)
        y = self.functional.conv2d(x, weight, bias, padding=1)
        return self.backward(y, x, weight, bias)

    def lstm(self) -> Iterator[bytes]:
        return self._recurrent(self.torch.nn.LSTM)

    def gru(self) -> Iterator[bytes]:
        return self._recurrent(self.torch.nn.GRU)

    def _recurrent(self, kind: Any) -> Iterator[bytes]:
        module = kind(24, 32, batch_first=True).to(self.device)
        with self.torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(self.values(*parameter.shape))
        x = self.values(8, 12, 24)
        return self.backward(module(x)[0], x, *module.parameters())

    def softmax(self) -> Iterator[bytes]:
        x = self.values(65, 1001)
        return self.backward(self.torch.log_softmax(x, 1) + self.torch.softmax(x, 1), x)

    def layer_norm(self) -> Iterator[bytes]:
        x, weight, bias = self.values(65, 257), self.values(257), self.values(257)
        return self.backward(self.functional.layer_norm(x, (257,), weight, bias), x, weight, bias)

    def batch_norm(self) -> Iterator[bytes]:
        x, weight, bias = self.values(16, 9, 13, 13), self.values(9), self.values(9)
        y = self.functional.batch_norm(x, None, None, weight, bias, training=True)
        return self.backward(y, x, weight, bias)

    def attention(self) -> Iterator[bytes]:
        q, k, v = (self.values(2, 4, 65, 32, step=step) for step in (40503, 30011, 20011))
        y = self.functional.scaled_dot_product_attention(q, k, v)
        return self.backward(y, q, k, v)

    def sum(self) -> Iterator[bytes]:
        x = self.values(300_007)
        y = x.reshape(-1)[: 293 * 1009].reshape(293, 1009)
        return self.bytes_of(x.sum(), x.mean(), x.std(), x.norm(), y.sum(0), y.sum(1))

    def cumsum(self) -> Iterator[bytes]:
        return self.bytes_of(self.torch.cumsum(self.values(20_011), 0))

    def sort(self) -> Iterator[bytes]:
        return self.bytes_of(*self.torch.sort(self.values(70_001)[:20_011], stable=True))

    def adam(self) -> Iterator[bytes]:
        """Its arithmetic by hand: the first optimiser of a process imports for two seconds."""
        weights = self.values(20_011).detach()
        mean, variance = self.torch.zeros_like(weights), self.torch.zeros_like(weights)
        for step, factor in enumerate((30011, 20011, 10007), start=1):
            gradient = self.values(20_011, step=factor).detach()
            mean.lerp_(gradient, 0.1)
            variance.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            scale = (variance.sqrt() / math.sqrt(1 - 0.999**step)).add_(1e-8)
            weights.mul_(0.9999).addcdiv_(mean, scale, value=-0.01 / (1 - 0.9**step))
        return self.bytes_of(weights)

    def embedding(self) -> Iterator[bytes]:
        weight = self.values(101, 32)
        index = (self.torch.arange(4096) * 40503 % 101).to(self.device)
        return self.backward(self.functional.embedding(index, weight), weight)

    def svd(self) -> Iterator[bytes]:
        linalg, a = self.torch.linalg, self.values(48, 48).detach().double()
        return self.bytes_of(linalg.svdvals(a), linalg.eigh(a @ a.T)[1], linalg.qr(a)[1])


def libraries() -> dict[str, str]:
    """The shared objects in this process that neither environment nor interpreter brought."""
    with open("/proc/self/maps") as file:
        lines = [line.split(None, 5) for line in file]
    paths = {line[5].strip() for line in lines if len(line) == 6 and ".so" in line[5]}
    found = {}
    for path in sorted(paths):
        if path.startswith("/") and not path.startswith(f"{ROOT}/"):
            with open(path, "rb") as library:
                found[os.path.basename(path)] = digest(iter(lambda: library.read(1 << 20), b""))
    return found


def threads(torch: Any) -> dict[str, int]:
    """How many each library would use."""
    found = {"processors": os.cpu_count() or 0}
    if torch is not None:
        found["torch"] = torch.get_num_threads()
        information = torch.__config__.parallel_info()
        for library, function in (("openmp", "omp"), ("mkl", "mkl")):
            said = re.search(rf"{function}_get_max_threads\(\) : (\d+)", information)
            if said:
                found[library] = int(said[1])
    with open("/proc/self/maps") as file:
        paths = {line.split()[-1] for line in file if "openblas" in line}
    for path in sorted(paths):
        count = _openblas_threads(ctypes.CDLL(path))
        if count:
            found["openblas"] = count
    return found


def _openblas_threads(library: Any) -> int | None:
    for prefix in ("scipy_openblas", "openblas"):
        for suffix in ("", "64_"):
            function = getattr(library, f"{prefix}_get_num_threads{suffix}", None)
            if function is not None:
                return int(function())
    return None


def versions(numpy: Any, torch: Any) -> dict[str, str]:
    found = {module.__name__: module.__version__ for module in (numpy, torch) if module is not None}
    if torch is not None and torch.cuda.is_available():
        found["cuda"] = str(torch.version.cuda)
        found["cudnn"] = str(torch.backends.cudnn.version())
        found["gpu"] = torch.cuda.get_device_name()
    return found


def available(name: str) -> Any:
    """A module of the environment; None where it has none, or a broken one."""
    try:
        return __import__(name)
    except Exception:
        return None


def main() -> None:
    numpy, torch = available("numpy"), available("torch")
    probes = math_probes()
    if numpy is not None:
        probes.update(NumpyProbes(numpy).probes())
    if torch is not None:
        probes.update(TorchProbes(torch, "cpu").probes())
        if torch.cuda.is_available():
            probes.update(TorchProbes(torch, "cuda").probes())
    digests: dict[str, str] = {}
    failed: dict[str, str] = {}
    for name, probe in sorted(probes.items()):
        try:
            digests[name] = digest(probe())
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    document = {
        "probes": digests,
        "failed": failed,
        "threads": threads(torch),
        "libraries": libraries(),
        "versions": versions(numpy, torch),
    }
    with open(f"{ROOT}/out/probes.json", "w") as file:
        json.dump(document, file)


if __name__ == "__main__":
    main()
