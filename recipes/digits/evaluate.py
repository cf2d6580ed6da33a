"""Accuracy and confusion matrix of a trained network on the test set."""

import argparse
import csv
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from digits import CLASSES, load
from net import Net


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="digits.csv.gz")
    parser.add_argument("--model", required=True, help="model.safetensors")
    parser.add_argument("--out", type=Path, required=True, help="an existing folder")
    options = parser.parse_args()

    net = Net()
    net.load_state_dict(load_file(options.model))
    net.eval()
    images, labels = load(options.data)[1].tensors
    with torch.no_grad():
        logits = net(images)
    predicted = logits.argmax(1)
    confusion = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    for wanted, found in zip(labels.tolist(), predicted.tolist(), strict=True):
        confusion[wanted, found] += 1

    metrics = {
        "accuracy": confusion.trace().item() / len(labels),
        "loss": cross_entropy(logits, labels).item(),
    }
    print(f"accuracy {metrics['accuracy']:.4f}  loss {metrics['loss']:.4f}")
    with open(options.out / "metrics.json", "w") as file:
        json.dump(metrics, file)
    with open(options.out / "confusion.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["digit", *range(CLASSES)])
        rows.writerows([digit, *row] for digit, row in enumerate(confusion.tolist()))


if __name__ == "__main__":
    main()
