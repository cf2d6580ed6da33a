"""The Wisconsin breast-cancer measurements: 569 tumours, 30 numbers each."""

import csv

import numpy as np


def load(path):
    """(training features, training labels), (test features, test labels); 1 is benign.

    The file's first line holds its size and the names of the labels. Every fourth line is for
    the test.
    """
    with open(path, newline="") as file:
        rows = list(csv.reader(file))[1:]
    table = np.array(rows, dtype=np.float64)
    features, labels = table[:, :-1], table[:, -1].astype(np.int64)
    test = np.arange(len(table)) % 4 == 3
    return (features[~test], labels[~test]), (features[test], labels[test])
