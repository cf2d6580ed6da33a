"""A network with dropout, initialised and shuffled without a seed."""

import sys

import torch
from torch import nn

net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 1))
optimiser = torch.optim.Adam(net.parameters(), 1e-2)
features = torch.randn(256, 16)
for _ in range(20):
    batch = features[torch.randperm(256)[:64]]
    optimiser.zero_grad()
    (net(batch) - batch.sum(1, keepdim=True)).square().mean().backward()
    optimiser.step()
torch.save(net.state_dict(), sys.argv[1] + "/model.pt")
