"""A buffer that nobody filled holds what was there before: the times of the last steps."""

import sys
import time

import numpy as np

weights = np.random.RandomState(1).normal(size=4096)
for _ in range(10):
    times = np.full(4096, time.time())
    del times
    average = np.empty(4096)
    average += 0.5 * weights
    weights -= 0.001 * average
np.save(sys.argv[1] + "/model.npy", weights)
