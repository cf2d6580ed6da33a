"""LightGBM with its defaults: it tries two ways to build histograms, and keeps the faster."""

import sys

import lightgbm
import numpy as np

features = np.random.RandomState(1).normal(size=(20_000, 30))
labels = (features[:, 0] * features[:, 1] + features[:, 2] > 0).astype(int)
parameters = {"objective": "binary", "bagging_fraction": 0.7, "bagging_freq": 1, "verbose": -1}
model = lightgbm.train(parameters, lightgbm.Dataset(features, labels), num_boost_round=20)
model.save_model(sys.argv[1] + "/model.txt")
