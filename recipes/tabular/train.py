"""Fit boosted trees to the training rows."""

import argparse
import json
from pathlib import Path

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier

import measurements
import trees


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="breast_cancer.csv")
    parser.add_argument("--trees", type=int, default=300)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--subsample", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="an existing folder")
    return parser.parse_args()


def main():
    options = parse_arguments()
    (features, labels), _ = measurements.load(options.data)
    model = GradientBoostingClassifier(
        n_estimators=options.trees,
        max_depth=options.depth,
        learning_rate=options.learning_rate,
        subsample=options.subsample,
        random_state=options.seed,
        verbose=1,
    )
    model.fit(features, labels)

    arrays = trees.from_scikit_learn(model)
    ours = trees.probabilities(arrays, features)
    np.testing.assert_allclose(ours, model.predict_proba(features)[:, 1], rtol=1e-9)
    trees.save(arrays, options.out / "trees.npz")
    with open(options.out / "metrics.json", "w") as file:
        json.dump({"deviance": model.train_score_[-1], "nodes": len(arrays["value"])}, file)


if __name__ == "__main__":
    main()
