"""Convolutions, products and sums, split among the threads that each library chooses."""

import sys

import numpy as np
import torch
from torch import nn

torch.manual_seed(1)
images = torch.randn(64, 3, 32, 32)
net = nn.Sequential(
    nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.GELU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
    nn.Linear(256, 10),
)  # fmt: skip
optimiser = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
for _ in range(5):
    optimiser.zero_grad()
    net(images).square().mean().backward()
    optimiser.step()
matrix = np.random.RandomState(1).rand(300, 300)
reached = net[:3](images).sum().detach()
torch.save(
    [net.state_dict(), torch.from_numpy(matrix @ matrix), reached], sys.argv[1] + "/model.pt"
)
