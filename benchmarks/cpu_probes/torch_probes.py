"""torch: every family of operations, in four types, with gradients where it has them.

Inputs are whole numbers divided by a power of two, the same everywhere whatever a CPU does.
The sizes cover loops with and without a remainder, small and blocked products.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from digests import Probe, show
from torch import nn
from torch.nn import functional as F  # noqa: N812


def exact(*shape: int, kind: torch.dtype = torch.float32) -> torch.Tensor:
    """Numbers from -2 to 2, exact in float32; drawn from torch's generator."""
    return ((torch.randint(2**22, shape) - 2**21).double() / 2**20).to(kind)


UNARY = (
    "exp expm1 log log1p log2 sqrt rsqrt reciprocal sin cos tan tanh sinh erf erfc sigmoid lgamma "
    "digamma erfinv asin atan square exp2"
)
ACTIVATIONS = "gelu silu elu softplus mish hardswish logsigmoid"


def torch_elementwise() -> Iterator[Probe]:
    for kind in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        bits = str(kind).removeprefix("torch.")
        torch.manual_seed(1)
        x, y = exact(4_099, kind=kind), exact(4_099, kind=kind)
        positive = x.abs() + 2**-6
        for name in UNARY.split():
            inside = x / 4 if name in ("erfinv", "asin", "atanh") else positive
            yield f"{name} {bits}", partial(getattr(torch, name), inside)
        for name in ACTIVATIONS.split():
            yield f"{name} {bits}", partial(getattr(F, name), x)
        yield f"gelu tanh {bits}", lambda x=x: F.gelu(x, approximate="tanh")
        yield f"pow {bits}", lambda x=positive, y=y: x**y
        yield f"div {bits}", lambda x=x, y=positive: x / y
        yield f"atan2 {bits}", lambda x=x, y=y: torch.atan2(x, y)
        for name in ("sum", "mean", "std", "norm", "prod", "logsumexp"):
            more = (0,) if name == "logsumexp" else ()
            yield f"{name} {bits}", partial(getattr(torch, name), positive, *more)
        yield f"cumsum {bits}", lambda x=x: x.cumsum(0)
        yield f"sort {bits}", lambda x=x: x.sort(stable=True)[1]
        yield f"topk {bits}", lambda x=x: x.topk(50)[0]
        rows = x[:4_096].view(64, 64)
        for name in ("softmax", "log_softmax", "sum", "mean", "amax"):
            yield f"{name} of rows {bits}", partial(getattr(torch, name), rows, -1)
            yield f"{name} of columns {bits}", partial(getattr(torch, name), rows, 0)


def torch_random() -> Iterator[Probe]:
    draws: dict[str, Callable[[], torch.Tensor]] = {
        "randn": lambda: torch.randn(1001),
        "randn float64": lambda: torch.randn(1001, dtype=torch.float64),
        "rand": lambda: torch.rand(1001),
        "randperm": lambda: torch.randperm(1001),
        "bernoulli": lambda: torch.bernoulli(torch.full((1001,), 0.3)),
        "dropout": lambda: F.dropout(torch.ones(1001), 0.3),
        "exponential": lambda: torch.empty(1001).exponential_(),
        "multinomial": lambda: torch.multinomial(torch.arange(1.0, 50), 20),
        "kaiming": lambda: nn.Linear(33, 65).weight,
        "trunc_normal": lambda: nn.init.trunc_normal_(torch.empty(1001)),
    }
    for name, draw in draws.items():
        yield name, lambda draw=draw: (torch.manual_seed(1), draw())[1]


def gradients(output: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
    """The output and the gradients of its square's sum, in one row."""
    found = torch.autograd.grad(output.float().pow(2).sum(), inputs)
    return torch.cat([each.detach().double().flatten() for each in (output, *found)])


def torch_products() -> Iterator[Probe]:
    """Products, convolutions, attention, with gradients."""
    for kind in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        bits = str(kind).removeprefix("torch.")
        torch.manual_seed(1)

        def leaf(*shape: int, kind: torch.dtype = kind) -> torch.Tensor:
            return exact(*shape, kind=kind).requires_grad_()

        for name, (m, n, k) in {"mm": (65, 71, 49), "mm large": (96, 160, 300)}.items():
            a, b = leaf(m, k), leaf(k, n)
            yield f"{name} {bits}", lambda a=a, b=b: gradients(a @ b, a, b)
            w, bias = leaf(n, k), leaf(n)
            yield (
                f"linear {name} {bits}",
                lambda a=a, w=w, bias=bias: gradients(F.linear(a, w, bias), a, w, bias),
            )
        yield f"mv {bits}", lambda a=a: a @ a.T[:, 0]
        a, b = leaf(6, 17, 33), leaf(6, 33, 29)
        yield f"bmm {bits}", lambda a=a, b=b: gradients(a @ b, a, b)
        x, w = leaf(4, 16, 14, 14), leaf(24, 16, 3, 3)
        yield f"conv2d {bits}", lambda x=x, w=w: gradients(F.conv2d(x, w, padding=1), x, w)
        last = x.detach().to(memory_format=torch.channels_last).requires_grad_()
        yield f"conv2d channels last {bits}", lambda x=last, w=w: gradients(F.conv2d(x, w), x, w)
        narrow = leaf(16, 1, 3, 3)
        yield (
            f"conv2d depthwise {bits}",
            lambda x=x, w=narrow: gradients(F.conv2d(x, w, groups=16), x, w),
        )
        turned = leaf(16, 8, 3, 3)
        yield (
            f"conv_transpose2d {bits}",
            lambda x=x, w=turned: gradients(F.conv_transpose2d(x, w, stride=2), x, w),
        )
        s, v = leaf(4, 16, 50), leaf(24, 16, 5)
        yield f"conv1d {bits}", lambda s=s, v=v: gradients(F.conv1d(s, v), s, v)
        q = leaf(2, 4, 70, 32)
        yield f"attention {bits}", lambda q=q: gradients(F.scaled_dot_product_attention(q, q, q), q)
        yield (
            f"attention causal {bits}",
            lambda q=q: gradients(F.scaled_dot_product_attention(q, q, q, is_causal=True), q),
        )


def torch_layers() -> Iterator[Probe]:
    """Layers, losses and recurrent networks in float32, with gradients."""
    torch.manual_seed(1)
    x = exact(6, 12, 10, 10).requires_grad_()
    rows = exact(64, 49).requires_grad_()
    labels = torch.arange(64) % 49
    layers: dict[str, Callable[[], torch.Tensor]] = {
        "batch_norm": lambda: F.batch_norm(x, torch.zeros(12), torch.ones(12), training=True),
        "group_norm": lambda: F.group_norm(x, 3),
        "avg_pool2d": lambda: F.avg_pool2d(x, 3),
        "max_pool2d": lambda: F.max_pool2d(x, 3),
        "adaptive_avg_pool2d": lambda: F.adaptive_avg_pool2d(x, 3),
        "interpolate": lambda: F.interpolate(x, scale_factor=1.7, mode="bilinear"),
    }
    for name, layer in layers.items():
        yield name, lambda layer=layer: gradients(layer(), x)
    losses: dict[str, Callable[[], torch.Tensor]] = {
        "layer_norm": lambda: F.layer_norm(rows, (49,)),
        "rms_norm": lambda: F.rms_norm(rows, (49,)),
        "cross_entropy": lambda: F.cross_entropy(rows, labels),
        "kl_div": lambda: F.kl_div(rows.log_softmax(-1), rows.detach().softmax(-1)),
        "huber": lambda: F.huber_loss(rows, rows.detach().roll(1)),
        "binary": lambda: F.binary_cross_entropy_with_logits(rows, (rows.detach() > 0).float()),
        "cosine": lambda: F.cosine_similarity(rows, rows.detach().roll(1)),
        "cdist": lambda: torch.cdist(rows, rows.detach().roll(1)),
        "einsum": lambda: torch.einsum("ij,kj,kl->il", rows, rows, rows),
        "index": lambda: rows[[1, 1, 5, 3]],
        "scatter_add": lambda: torch.zeros(5, 49).index_add(0, labels % 5, rows),
    }
    for name, loss in losses.items():
        yield name, lambda loss=loss: gradients(loss(), rows)
    weight = exact(50, 24).requires_grad_()
    yield "embedding", lambda: gradients(F.embedding(labels, weight), weight)
    sequence = exact(9, 5, 24).requires_grad_()
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        network = kind(24, 33, num_layers=2, bidirectional=kind is nn.LSTM)
        with torch.no_grad():
            for each in network.parameters():
                each.copy_(exact(*each.shape) / 8)
        weights = list(network.parameters())
        yield f"{kind.__name__} forward", lambda n=network: _without_gradients(n, sequence)
        yield (
            f"{kind.__name__} training",
            lambda n=network, w=weights: gradients(n(sequence)[0], sequence, *w),
        )


@torch.no_grad()
def _without_gradients(network: nn.Module, sequence: torch.Tensor) -> torch.Tensor:
    return network(sequence)[0]


def torch_linear_algebra() -> Iterator[Probe]:
    for kind in (torch.float32, torch.float64):
        bits = str(kind).removeprefix("torch.")
        torch.manual_seed(1)
        a = exact(60, 60, kind=kind)
        definite = a @ a.T + 99 * torch.eye(60, dtype=kind)
        for name in ("svdvals", "qr", "eigvals", "inv", "slogdet", "pinv"):
            yield f"{name} {bits}", partial(_last, getattr(torch.linalg, name), a)
        for name in ("eigvalsh", "cholesky"):
            yield f"{name} {bits}", partial(getattr(torch.linalg, name), definite)
        yield f"solve {bits}", lambda a=definite, b=a: torch.linalg.solve(a, b)
        yield f"fft {bits}", lambda a=a: torch.view_as_real(torch.fft.fft(a))


def _last(decompose: Callable[[torch.Tensor], Any], matrix: torch.Tensor) -> torch.Tensor:
    found = decompose(matrix)
    found = found[-1] if isinstance(found, tuple) else found
    return torch.view_as_real(found) if found.is_complex() else found


def torch_quantised() -> Iterator[Probe]:
    torch.manual_seed(1)
    a = torch.randint(-127, 127, (64, 64), dtype=torch.int8)
    yield "int8 mm", lambda: torch._int_mm(a, a.T.contiguous())
    engines = torch.backends.quantized.supported_engines
    for engine in (each for each in engines if each != "none"):
        yield f"quantised linear {engine}", lambda engine=engine: _quantised_linear(engine)


def _quantised_linear(engine: str) -> torch.Tensor:
    torch.backends.quantized.engine = engine
    torch.manual_seed(1)
    weight = torch.quantize_per_tensor(exact(40, 60), 2**-6, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(weight, exact(40))
    return torch.ops.quantized.linear_dynamic(exact(30, 60), packed)


if __name__ == "__main__":
    warnings.simplefilter("ignore", UserWarning)
    show(
        {
            "torch": torch_elementwise,
            "torch random": torch_random,
            "torch products": torch_products,
            "torch layers": torch_layers,
            "torch linalg": torch_linear_algebra,
            "torch int8": torch_quantised,
        }
    )
