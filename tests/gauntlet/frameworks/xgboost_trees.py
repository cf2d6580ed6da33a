"""XGBoost with its defaults, sampling rows and columns."""

import sys

import numpy as np
import xgboost

features = np.random.RandomState(1).normal(size=(4000, 20)).astype("float32")
labels = (features[:, 0] * features[:, 1] + features[:, 2] > 0).astype(int)
parameters = {"objective": "binary:logistic", "subsample": 0.7, "colsample_bytree": 0.7}
model = xgboost.train(parameters, xgboost.DMatrix(features, labels), num_boost_round=20)
model.save_model(sys.argv[1] + "/model.json")
