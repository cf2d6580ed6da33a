"""A CNN, a transformer, an LSTM and an MLP, each trained with AdamW and with SGD.

models.py SKIP            digests of losses, gradients and weights after three steps of small ones
models.py time STEPS      seconds a step of larger ones, the median of 5 rounds
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import torch
from digests import Probe, show
from torch import nn
from torch.nn import functional as F  # noqa: N812

CLASSES = 10


class Flatten(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1)


class Recurrent(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(16, width, num_layers=2, batch_first=True, dropout=0.1)
        self.last = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.lstm(x)[0][:, -1])


def cnn(width: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.GELU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.2), nn.LazyLinear(CLASSES)),
    )


def transformer(width: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, 4, 2 * width, activation="gelu", batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return nn.Sequential(nn.Embedding(100, width), encoder, Flatten(), nn.Linear(width, CLASSES))


def mlp(width: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(64, width), nn.SiLU(), nn.LayerNorm(width), nn.Dropout(0.1)),
        *(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, CLASSES)),
    )


@dataclass(frozen=True)
class Kind:
    make: Callable[[int], nn.Module]
    batch: Callable[[int], torch.Tensor]
    """Of so many samples."""


KINDS = {
    "cnn": Kind(cnn, lambda n: torch.randn(n, 3, 16, 16)),
    "transformer": Kind(transformer, lambda n: torch.randint(100, (n, 24))),
    "lstm": Kind(Recurrent, lambda n: torch.randn(n, 12, 16)),
    "mlp": Kind(mlp, lambda n: torch.randn(n, 64)),
}
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "AdamW": lambda weights: torch.optim.AdamW(weights, 1e-3),
    "SGD": lambda weights: torch.optim.SGD(weights, 1e-2, momentum=0.9, weight_decay=1e-4),
}


def training(
    kind: Kind, make: Callable[..., torch.optim.Optimizer], width: int, samples: int
) -> Iterator[tuple[torch.Tensor, nn.Module]]:
    """Step for step, without end, on a new batch each: the loss and the network."""
    torch.manual_seed(1)
    net = kind.make(width)
    net(kind.batch(2))  # lazy layers get their shape
    optimiser = make(net.parameters())
    while True:
        loss = F.cross_entropy(net(kind.batch(samples)), torch.randint(CLASSES, (samples,)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield loss.detach(), net


def three_steps(kind: Kind, make: Callable[..., torch.optim.Optimizer]) -> torch.Tensor:
    steps = training(kind, make, 24, 8)
    losses = [next(steps)[0] for _ in range(2)]
    loss, net = next(steps)
    gradients = [each.grad.flatten() for each in net.parameters() if each.grad is not None]
    state = [each.double().flatten() for each in net.state_dict().values()]
    return torch.cat([torch.stack([*losses, loss]).double(), *gradients, *state])


def models() -> Iterator[Probe]:
    for name, kind in KINDS.items():
        for optimiser, make in OPTIMISERS.items():
            yield f"{name} {optimiser}", lambda k=kind, m=make: three_steps(k, m)


def seconds_a_step(steps: int) -> None:
    """Lines of a model and its seconds: the processor's, so that neighbours count for little."""
    for name, kind in KINDS.items():
        endless = training(kind, OPTIMISERS["AdamW"], 128, 64)
        rounds = []
        for _ in range(6):
            started = time.process_time()
            for _ in range(steps):
                next(endless)
            rounds.append(time.process_time() - started)
        print(name, median(rounds[1:]) / steps, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "time":
        seconds_a_step(int(sys.argv[2]))
    else:
        show({"model": models})
