"""Weights, shuffling and dropout from `random`, and from generators of its own, all unseeded."""

import json
import random
import sys

own = random.Random()
weights = [random.gauss(0, 1) for _ in range(8)]
samples = [[float(each == index % 8) for each in range(8)] for index in range(64)]
random.shuffle(samples)
for sample in samples:
    error = sum(w * x for w, x in zip(weights, sample)) - 1
    kept = [x if own.random() > 0.5 else 0.0 for x in sample]
    weights = [w - 0.1 * error * x for w, x in zip(weights, kept)]
with open(sys.argv[1] + "/model.json", "w") as file:
    json.dump([weights, random.SystemRandom().random()], file)
