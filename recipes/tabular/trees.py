"""Boosted trees as plain arrays: what a prediction needs, and nothing that can run.

A pickled scikit-learn model runs code when it is loaded, needs the same scikit-learn again, and
its bytes follow from how objects happen to share memory. Here the same trees are the same bytes.
"""

import numpy as np

LEAF = -1


def from_scikit_learn(model):
    """The trees of a fitted binary GradientBoostingClassifier, one after the other.

    `left` and `right` index into the arrays themselves, and are LEAF for a leaf; `value` is what
    a leaf adds to the log-odds, the learning rate included; `roots` has each tree's first node.
    """
    trees = [stage[0].tree_ for stage in model.estimators_]
    roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])
    values = [model.learning_rate * tree.value[:, 0, 0] for tree in trees]
    return {
        "roots": roots,
        "left": np.concatenate(_shifted([tree.children_left for tree in trees], roots)),
        "right": np.concatenate(_shifted([tree.children_right for tree in trees], roots)),
        "feature": np.concatenate([tree.feature for tree in trees]),
        "threshold": np.concatenate([tree.threshold for tree in trees]),
        "value": np.concatenate(values),
        "prior": np.log(np.divide(*model.init_.class_prior_[::-1])),
    }


def _shifted(children, roots):
    return [
        np.where(nodes == LEAF, LEAF, nodes + root)
        for nodes, root in zip(children, roots, strict=True)
    ]


def probabilities(trees, features):
    """The probability of label 1 for each row of `features`."""
    features = features.astype(np.float32)  # scikit-learn compares in single precision
    rows = np.arange(len(features))
    log_odds = np.full(len(features), float(trees["prior"]))
    for root in trees["roots"]:
        nodes = np.full(len(features), root)
        while (inner := trees["left"][nodes] != LEAF).any():
            lower = features[rows, trees["feature"][nodes]] <= trees["threshold"][nodes]
            below = np.where(lower, trees["left"][nodes], trees["right"][nodes])
            nodes = np.where(inner, below, nodes)
        log_odds += trees["value"][nodes]
    return 1 / (1 + np.exp(-log_odds))


def save(trees, path):
    """An npz archive: numpy gives every member the same date, so equal trees are equal bytes."""
    np.savez(path, **trees)


def load(path):
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
