"""The UCI hand-written digits: 1797 images of 8 x 8 pixels with 17 levels of grey."""

import numpy as np
import torch
from torch.utils.data import TensorDataset

CLASSES = 10


def load(path):
    """Training and test set from the gzipped CSV: 64 pixels and the digit a line.

    Images are (n, 1, 8, 8) floats from 0 to 1. Every fifth line is for the test.
    """
    table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.float32))
    images = table[:, :64].reshape(-1, 1, 8, 8) / 16
    labels = table[:, 64].long()
    test = torch.arange(len(table)) % 5 == 4
    return (
        TensorDataset(images[~test], labels[~test]),
        TensorDataset(images[test], labels[test]),
    )
