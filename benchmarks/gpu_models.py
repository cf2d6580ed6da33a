"""Four small trainings, as people write them: nothing seeded, nothing said about determinism.

    python gpu_models.py NAME --device cuda --steps 40 [--size tiny] [--fault KIND --at STEP]

Prints one line of JSON: a digest of the trained parameters and losses, and the seconds of a step.
For `gpu_checks.py`, which starts it again and again; it knows nothing of modelbuild.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional

WARM_UP = 5
FAULTS = ("batch", "random", "gradients")
SIZES = {
    "cnn": {"full": (128, 64, 64), "tiny": (8, 16, 8)},  # batch, side of an image, width
    "transformer": {"full": (16, 512, 512), "tiny": (2, 16, 16)},  # batch, length, width
    "lstm": {"full": (64, 128, 512), "tiny": (4, 8, 16)},
    "compiled": {"full": (32, 256, 256), "tiny": (2, 16, 16)},
}
CLASSES, WORDS = 10, 512


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(x + self.body(x))


class Cnn(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, stride=2, padding=3)
        self.body = nn.Sequential(*(Residual(width) for _ in range(4)))
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, CLASSES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen = functional.max_pool2d(self.body(self.stem(images)), 2)
        return self.head(seen.mean((2, 3)))


class Block(nn.Module):
    """Attention by `scaled_dot_product_attention`, causal, with dropout."""

    def __init__(self, width: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projections, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.projections(self.before(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        dropout = 0.1 if self.training else 0.0
        seen = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        x = x + self.joined(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.wide(self.between(x))


class Transformer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(4)))
        self.head = nn.Linear(width, WORDS)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.words(words))).transpose(1, 2)


class Lstm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        self.body = nn.LSTM(width, width, num_layers=2, batch_first=True, dropout=0.2)
        self.head = nn.Linear(width, WORDS)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.words(words))[0]).transpose(1, 2)


MODELS = {"cnn": Cnn, "transformer": Transformer, "lstm": Lstm, "compiled": Transformer}


class Training:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.batch, self.length, width = SIZES[options.name][options.size]
        self.net = MODELS[options.name](width).to(options.device)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), 1e-3)
        self.forward = torch.compile(self.net) if options.name == "compiled" else self.net

    def data(self) -> tuple[torch.Tensor, torch.Tensor]:
        device, shape = self.options.device, (self.batch, self.length)
        if self.options.name == "cnn":
            images = torch.randn(self.batch, 3, self.length, self.length, device=device)
            return images, torch.randint(CLASSES, (self.batch,), device=device)
        words = torch.randint(WORDS, shape, device=device)
        return words, words.roll(-1, 1)

    def step(self, number: int) -> torch.Tensor:
        fault = self.options.fault if number == self.options.at else None
        inputs, labels = self.data()
        if fault == "batch":  # two examples change places
            inputs, labels = inputs.roll(1, 0), labels.roll(1, 0)
        if fault == "random":
            torch.rand((), device="cpu")
        self.optimiser.zero_grad()
        on_gpu = self.options.device == "cuda"
        with torch.autocast("cuda", torch.bfloat16, enabled=on_gpu and number % 2 == 0):
            loss = functional.cross_entropy(self.forward(inputs), labels)
        loss.backward()
        if fault == "gradients":
            [*self.net.parameters()][-1].grad.neg_()
        self.optimiser.step()
        return loss.detach()


def train(options: argparse.Namespace) -> dict[str, object]:
    training, seconds, losses = Training(options), [], []
    for number in range(1, options.steps + 1):
        began = time.perf_counter()
        losses.append(training.step(number))
        if options.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    digest = hashlib.sha256()
    for tensor in (*training.net.state_dict().values(), torch.stack(losses)):
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {
        "digest": digest.hexdigest()[:16],
        "loss": float(losses[-1]),
        "step": statistics.median(seconds[WARM_UP:]),
    }


def about() -> dict[str, object]:
    """What this interpreter and this machine are."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpu else None,
        "gpu": gpu,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=[*MODELS, "about"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--size", choices=["full", "tiny"], default="full")
    parser.add_argument("--fault", choices=FAULTS)
    parser.add_argument("--at", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(about() if options.name == "about" else train(options)), flush=True)


if __name__ == "__main__":
    main()
