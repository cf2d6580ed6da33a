"""torch is asked to seed itself from the system."""

import sys

import torch

torch.seed()
generator = torch.Generator()
generator.seed()
weights = torch.randn(8) + torch.randn(8, generator=generator)
torch.save(weights, sys.argv[1] + "/model.pt")
