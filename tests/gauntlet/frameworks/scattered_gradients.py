"""The gradient of a look-up is added up by several threads at once."""

import sys

import torch

torch.manual_seed(1)
table = torch.randn(64, 32, requires_grad=True)
optimiser = torch.optim.SGD([table], 0.1)
for _ in range(10):
    index = torch.randint(0, 64, (200_000,))
    optimiser.zero_grad()
    (table[index] * torch.randn(200_000, 1)).sum().backward()
    optimiser.step()
torch.save(table.detach(), sys.argv[1] + "/model.pt")
