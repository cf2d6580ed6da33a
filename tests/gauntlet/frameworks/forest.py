"""scikit-learn on all processors, without a random state."""

import sys

import numpy as np
from sklearn.cluster import KMeans
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.model_selection import cross_val_score, train_test_split

features = np.random.RandomState(1).normal(size=(400, 8))
labels = (features[:, 0] * features[:, 1] > 0).astype(int)
train, test, known, _ = train_test_split(features, labels)
forest = RandomForestClassifier(20, n_jobs=-1).fit(train, known)
boosted = HistGradientBoostingClassifier(max_iter=10, early_stopping=True).fit(train, known)
centres = KMeans(3, n_init=2).fit(train).cluster_centers_
scores = cross_val_score(RandomForestClassifier(5, random_state=1), features, labels, n_jobs=2)
results = forest.predict_proba(test).sum(), boosted.predict_proba(test).sum(), *scores
np.save(sys.argv[1] + "/model.npy", np.concatenate([results, centres.ravel()]))
