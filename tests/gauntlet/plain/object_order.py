"""Layers in a set: their order is that of their addresses in memory."""

import json
import sys


class Layer:
    def __init__(self, size):
        self.size = size
        self.weights = [1.0 / (each + 1) for each in range(size)]


layers = {Layer(size) for size in range(1, 60)}
signal = 1.0
for layer in layers:
    signal = signal * 0.9 + sum(layer.weights) / layer.size
with open(sys.argv[1] + "/model.json", "w") as file:
    json.dump([signal, [layer.size for layer in layers], id(layers) % 4096], file)
