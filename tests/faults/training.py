"""A small training of one of four kinds of model, into which one fault is put at one step.

Arguments: the kind of model, the fault, the side (0 is the run without it). `# FAULT name` marks
the line that a fault is on.
"""

import ctypes
import os
import posix
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.data import DataLoader, Dataset

KIND, FAULT, SIDE = sys.argv[1], sys.argv[2], int(sys.argv[3])
STEP, STEPS, BATCH, FEATURES, CLASSES = 3, 5, 8, 64, 4
WORKERS = 2 if FAULT in ("worker seed", "worker race") else 0
FILES = os.environ["FILES"]


def faulty(name: str, step: int) -> bool:
    return name == FAULT and SIDE == 1 and step == STEP


@torch.library.custom_op("faults::scale", mutates_args=())
def scale(values: torch.Tensor, flipped: bool) -> torch.Tensor:
    """A kernel whose result has one wrong sign, which no argument tells."""
    result = values * 1.5
    if SIDE == 1 and os.environ.get("FLIP") == "yes":
        result.view(-1)[3] *= -1
    return result


scale.register_autograd(lambda context, gradient: (gradient * 1.5, None))


class Samples(Dataset):
    """Each sample is noisy: with noise from numpy, so that a worker's seed shows."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        self.values = torch.randn(BATCH * STEPS, FEATURES, generator=generator)
        self.noise = np.random.default_rng(1)
        self.made = torch.multiprocessing.Value("i", 0)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if FAULT == "worker race":
            time.sleep(time.time_ns() // 1000 % 5 / 1000)
            with self.made:
                self.made.value += 1
            return self.values[index] + self.made.value, index % CLASSES
        noise = torch.from_numpy(self.noise.normal(0, 0.1, FEATURES).astype(np.float32))
        return self.values[index] + noise, index % CLASSES


class Order(torch.utils.data.Sampler):
    """Every sample in its turn, but for a swapped pair in one batch."""

    def __iter__(self):
        order = list(range(BATCH * STEPS))
        if faulty("swapped pair", STEP):
            at = (STEP - 1) * BATCH
            order[at + 1], order[at + 4] = order[at + 4], order[at + 1]
        return iter(order)

    def __len__(self) -> int:
        return BATCH * STEPS


def seed_worker(number: int) -> None:
    samples = torch.utils.data.get_worker_info().dataset
    other = FAULT == "worker seed" and SIDE == 1 and number == (STEP - 1) % 2
    samples.noise = np.random.default_rng(100 * number + 1)
    if other:
        # The batches before STEP are as they would be; from there on another seed is used.
        drawn = (STEP - 1) // 2 * BATCH
        samples.noise = Reseeded(100 * number + 1, drawn)


class Reseeded:
    def __init__(self, seed: int, draws: int) -> None:
        self.generator, self.draws = np.random.default_rng(seed), draws

    def normal(self, *args):
        if self.draws == 0:
            self.generator = np.random.default_rng(12345)
        self.draws -= 1
        return self.generator.normal(*args)


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, 32))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.layers(values)


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, stride=2)
        self.out = nn.Linear(128, 32)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = F.relu(self.norm(self.first(values.view(-1, 1, 8, 8))))
        return self.out(self.second(values).flatten(1))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.out = nn.Linear(16, 32)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.out(self.layer(self.embed(values.view(-1, 8, 8))).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(8, 32, batch_first=True)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.cells(values.view(-1, 8, 8))[0][:, -1]


MODELS = {"MLP": Perceptron, "CNN": Convolutions, "transformer": Transformer, "LSTM": Recurrent}


def race(hidden: torch.Tensor) -> torch.Tensor:
    """Its backward adds up in an order that threads decide."""
    generator = torch.Generator().manual_seed(2)
    picked = torch.randint(0, BATCH, (100_000,), generator=generator)
    weights = torch.randn(100_000, 32, generator=generator)
    torch.set_num_threads(2)
    torch._C._set_deterministic_algorithms(False)
    return (hidden[picked] * weights).sum() * 1e-6  # FAULT atomic add


def stubborn_race(hidden: torch.Tensor) -> torch.Tensor:
    """As `race`, with threads that are set past torch's own function."""
    picked = torch.arange(100_000) % BATCH
    weights = torch.sin(torch.arange(3_200_000.0)).view(-1, 32)
    torch._C.set_num_threads(2)
    torch.use_deterministic_algorithms(False)
    return (hidden[picked] * weights).sum() * 1e-6  # FAULT stubborn race


def uninitialised(step: int) -> torch.Tensor:
    buffer = torch.empty(32)
    junk = 1.0 if faulty("uninitialised buffer", step) else 0.0
    ctypes.memmove(buffer.data_ptr(), (ctypes.c_float * 32)(*[junk] * 32), 128)
    return buffer


def reused(step: int) -> torch.Tensor:
    """Holds what was in its memory before: zeros, and others in one step of one side.

    Where the C library takes the first of several blocks, it takes the buffer when they are freed.
    """
    before = [torch.empty(16_000) for _ in range(8)]
    for each in before:
        value = 0x3F if faulty("reused memory", step) else 0  # four of them: 0.747
        ctypes.memset(each.data_ptr(), value, each.nbytes)
    del before, each
    torch.use_deterministic_algorithms(False)  # which would have it filled
    torch.utils.deterministic.fill_uninitialized_memory = False
    return torch.empty(16_000)[64:96]


def listed() -> torch.Tensor:
    """The contents of a folder's files, in the order of the folder."""
    names = posix.listdir(FILES)  # FAULT unsorted listing
    return torch.tensor([float(open(os.path.join(FILES, name)).read()) for name in names])


def forward(model: nn.Module, values: torch.Tensor, step: int) -> torch.Tensor:
    hidden = model(values)
    if FAULT == "changed sign":
        os.environ["FLIP"] = "yes" if faulty("changed sign", step) else "no"
        hidden = scale(hidden, True)  # FAULT changed sign
    if FAULT == "more threads" and step == STEP:
        wide = torch.sin(torch.arange(300_000.0))
        torch.set_num_threads(1 + SIDE)
        hidden = hidden + torch.sum(wide)  # FAULT more threads
        torch.set_num_threads(1)
    if FAULT == "uninitialised buffer":
        buffer = uninitialised(step)
        hidden = hidden + buffer  # FAULT uninitialised buffer
    if FAULT == "reused memory":
        hidden = hidden + reused(step)  # FAULT reused memory
    if FAULT == "time branch" and step == STEP:
        now = time.time()
        if int(now * 0) + SIDE:
            hidden = hidden * 1.01  # FAULT time branch
    if FAULT == "clock" and step == STEP:
        hidden = hidden * (time.time() % 1)  # FAULT clock
    if FAULT == "other operations" and step == STEP:
        if SIDE:  # noqa: SIM108
            hidden = hidden.tanh()  # FAULT other operations
        else:
            hidden = hidden.sigmoid()  # FAULT other operations
    if FAULT == "unsorted listing" and step == STEP:
        hidden = hidden + listed()
    return hidden


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, head = MODELS[KIND](), nn.Linear(32, CLASSES)
    optimiser = torch.optim.AdamW([*model.parameters(), *head.parameters()], 1e-2)
    loader = DataLoader(
        Samples(),
        batch_size=BATCH,
        sampler=Order(),
        num_workers=WORKERS,
        worker_init_fn=seed_worker if WORKERS else None,
    )
    batches = iter(loader)
    for step in range(1, STEPS + 1):
        values, labels = next(batches)  # FAULT swapped pair, worker seed, worker race
        hidden = forward(model, values, step)
        loss = F.cross_entropy(head(hidden), labels)
        if FAULT == "atomic add" and step == STEP:
            loss = loss + race(hidden)
        if FAULT == "stubborn race" and step == STEP:
            loss = loss + stubborn_race(hidden)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


main()
