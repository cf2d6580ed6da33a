"""A worker for each processor augments with three generators, none of them seeded."""

import os
import random
import sys

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class Noisy(Dataset):
    def __len__(self):
        return 48

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + np.random.default_rng().random()
        return torch.full((4,), index / 48) + torch.rand(4) + noise


if __name__ == "__main__":
    workers = len(os.sched_getaffinity(0))
    loader = DataLoader(Noisy(), batch_size=8, shuffle=True, num_workers=workers)
    weights = torch.zeros(4, dtype=torch.float64)
    for _ in range(2):
        for batch in loader:
            weights += 0.1 * (batch.mean(0).double() - weights)
    torch.save(weights, sys.argv[1] + "/model.pt")
