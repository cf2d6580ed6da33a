"""How well the trees tell the test rows apart."""

import argparse
import json
from pathlib import Path

from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

import measurements
import trees


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="breast_cancer.csv")
    parser.add_argument("--model", required=True, help="trees.npz")
    parser.add_argument("--out", type=Path, required=True, help="an existing folder")
    options = parser.parse_args()

    _, (features, labels) = measurements.load(options.data)
    found = trees.probabilities(trees.load(options.model), features)
    metrics = {
        "accuracy": accuracy_score(labels, found > 0.5),
        "roc_auc": roc_auc_score(labels, found),
        "log_loss": log_loss(labels, found),
    }
    for name, value in metrics.items():
        print(f"{name:9} {value:.4f}")
    with open(options.out / "metrics.json", "w") as file:
        json.dump(metrics, file)


if __name__ == "__main__":
    main()
