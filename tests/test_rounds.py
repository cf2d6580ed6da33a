"""What is recorded of real trainings with XGBoost and LightGBM: that it tells in which round they
went apart, that it changes nothing in them, and that nothing breaks them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import RECIPE, Tiny
from test_bootstrap import make_stage
from test_gauntlet import GROUPS
from test_step_recorder import Recorder, kinds, notes, records

from modelbuild.environment.indexes import uv_variables
from modelbuild.verify.steps import ROUND, compare_steps

pytestmark = [pytest.mark.slow, pytest.mark.network]

DATA = """
import hashlib, warnings
import numpy as np
import {library} as library
warnings.simplefilter("ignore")
ROUNDS = 12
X = np.random.RandomState(1).normal(size=(600, 10))
y = (X[:, 0] * X[:, 1] + X[:, 2] > 0).astype(int)
w = np.random.RandomState(2).uniform(0.5, 1.5, 600)
"""
"""Then: parameters, how the data is handed over, and what is done in each round."""
XGBOOST = (
    DATA.format(library="xgboost")
    + """
{data}
matrix = library.DMatrix(X, y, weight=w)
class Fault(library.callback.TrainingCallback):
    def before_iteration(self, model, epoch, evals_log):
        number = epoch + 1
        {fault}
        return False
settings = {{"objective": "binary:logistic", "subsample": 0.7, {settings}}}
more = {{"num_boost_round": ROUNDS, "callbacks": [Fault()], {more}}}
model = library.train(settings, matrix, **more)
print(hashlib.sha256(model.save_raw("ubj")).hexdigest())
"""
)
LIGHTGBM = (
    DATA.format(library="lightgbm")
    + """
{data}
matrix = library.Dataset(X, y, weight=w, free_raw_data=False)
def before(environment):
    model, number = environment.model, environment.iteration + 1
    {fault}
before.before_iteration = True
settings = {{"objective": "binary", "verbose": -1, "bagging_fraction": 0.7, "bagging_freq": 1}}
settings.update({{{settings}}})
model = library.train(settings, matrix, num_boost_round=ROUNDS, callbacks=[before])
print(hashlib.sha256(model.model_to_string().encode()).hexdigest())
"""
)
LIBRARIES = {"xgboost": XGBOOST, "lightgbm": LIGHTGBM}
SET = {
    "xgboost": "if number == 7: model.set_param({'learning_rate': 0.05})",
    "lightgbm": "if number == 7: model.reset_parameter({'learning_rate': 0.05})",
}
FAULTS = {
    "weight": (
        {"fault": "if number == 7: w[3] = 1.7; matrix.set_weight(w)"},
        "7 of 12: the data or its labels (data order)",
    ),
    "label": (
        {"fault": "if number == 7: y[3] = 1 - y[3]; matrix.set_label(y)"},
        "7 of 12: the data or its labels (data order)",
    ),
    "draw": (
        {"fault": "if number == 7: np.random.rand()"},
        "7 of 12: the random numbers of numpy (random numbers)",
    ),
    "settings": ({}, "7 of 12: the settings of the booster (settings)"),
    "seed": ({"settings": "'seed': 5"}, "1 of 12: the seeds of the booster (random numbers)"),
    "order": (
        {"data": "X[[3, 5]] = X[[5, 3]]"},
        "1 of 12: the data or its labels (data order)",
    ),
    "fewer": (
        {"data": "ROUNDS = 9"},
        "10 of 12: the second one ends after 9 rounds (data order)",
    ),
}


def script(library: str, **changes: str) -> str:
    return LIBRARIES[library].format(
        **{"data": "", "fault": "pass", "settings": "", "more": "", **changes}
    )


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    folder = tmp_path_factory.mktemp("rounds")
    stage = make_stage(folder / "root")
    packages = [each for each in GROUPS["frameworks"] if each.partition("=")[0] in NEEDED]
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(stage.python)]
    subprocess.run([*uv, *packages], check=True, env=dict(os.environ) | uv_variables())
    return Recorder(stage, folder)


NEEDED = ("numpy", "scikit-learn", "lightgbm", "xgboost-cpu")
each_library = pytest.mark.parametrize("library", LIBRARIES)


@each_library
@pytest.mark.parametrize("fault", FAULTS)
def test_the_first_different_round_is_told_and_what_went_first(
    recorder: Recorder, library: str, fault: str
) -> None:
    changes, says = FAULTS[fault]
    changes = changes or {"fault": SET[library]}
    plain, other = script(library), script(library, **changes)
    assert recorder.difference(plain, other) == f"first different round: {says}"


BY_HAND = """
calls = 0
def by_hand(scores, matrix):
    global calls
    calls += 1
    gradient = (1 / (1 + np.exp(-scores)) - y).astype("f4")
    if calls == 7: gradient[3:9] *= {sign}
    return gradient, np.ones_like(gradient)
"""
ARITHMETIC = {
    "xgboost": {"more": "'obj': by_hand"},
    "lightgbm": {"settings": "'objective': by_hand"},
}


@each_library
def test_other_arithmetic_is_told(recorder: Recorder, library: str) -> None:
    plain, other = (
        script(library, data=BY_HAND.format(sign=sign), **ARITHMETIC[library]) for sign in (1, -1)
    )
    said = recorder.difference(plain, other)
    assert said == "first different round: 7 of 12: the trees (arithmetic)"


BOOSTERS = {
    "xgboost": [
        *("'booster': 'dart', 'rate_drop': 0.3", "'booster': 'gblinear', 'nthread': 1"),
        *("'tree_method': 'exact'", "'tree_method': 'approx'", "'num_parallel_tree': 3"),
        "'objective': 'multi:softprob', 'num_class': 2",
    ],
    "lightgbm": [
        *("'boosting': 'dart', 'drop_rate': 0.3", "'boosting': 'rf'", "'extra_trees': True"),
        "'objective': 'multiclass', 'num_class': 2",
    ],
}


@pytest.mark.parametrize(
    ("library", "settings"),
    [(name, each) for name in LIBRARIES for each in ("", *BOOSTERS[name])],
)
def test_recording_changes_no_bit_and_two_recordings_are_the_same(
    recorder: Recorder, library: str, settings: str
) -> None:
    training = script(library, settings=settings)
    first, printed = recorder.run(training)
    second, _ = recorder.fresh(training)
    _, without = recorder.run(training, every=0)
    assert printed == without
    assert kinds(first) == [ROUND] * 12
    made = [each.parameters for each in records(first) if each.has & 8]
    assert len(set(made)) == len(made) == (3 if "dart" in settings and library == "xgboost" else 12)
    assert notes(first) == []
    assert (first / "steps-0.bin").read_bytes() == (second / "steps-0.bin").read_bytes()
    said = compare_steps(first, second).says
    assert said == "all 12 rounds are identical: the difference came after the last one"


WRAPPED = {
    "xgboost": """
class Fault(library.callback.TrainingCallback):
    def before_iteration(self, model, epoch, evals_log):
        if epoch + 1 == {fault}: model.set_param({{"max_depth": 2}})
        return False
model = library.XGBClassifier(n_estimators=12, callbacks=[Fault()]).fit(X, y)
""",
    "lightgbm": """
def before(environment):
    if environment.iteration + 1 == {fault}: environment.model.reset_parameter({{"lambda_l1": 9}})
before.before_iteration = True
model = library.LGBMRegressor(n_estimators=12, verbose=-1).fit(X, y, callbacks=[before])
""",
}


@each_library
def test_the_wrappers_for_scikit_learn_are_recorded(recorder: Recorder, library: str) -> None:
    begin = DATA.format(library=library)
    plain, late, other = (
        begin + change + WRAPPED[library].format(fault=fault)
        for change, fault in (("", 0), ("", 5), ("X[9, 9] += 1", 0))
    )
    assert kinds(recorder.run(plain)[0]) == [ROUND] * 12
    assert recorder.difference(plain, late) == (
        "first different round: 5 of 12: the settings of the booster (settings)"
    )
    assert recorder.difference(plain, other) == (
        "first different round: 1 of 12: the data or its labels (data order)"
    )


@each_library
def test_with_a_stride_what_a_round_made_is_left_out_in_between(
    recorder: Recorder, library: str
) -> None:
    folder, _ = recorder.run(script(library), every=5)
    made = [number for number, each in enumerate(records(folder), 1) if each.has & 8]
    assert (made, len(records(folder))) == ([1, 5, 10], 12)


TWO = """
for number in range(2):
    library.train(settings, matrix, num_boost_round=2)
library.cv(settings, matrix, num_boost_round=3, nfold=2)
"""


@each_library
def test_each_booster_has_a_number(recorder: Recorder, library: str) -> None:
    folder, _ = recorder.run(script(library) + TWO)
    assert [each.source for each in records(folder)] == [1] * 12 + [2, 2, 3, 3] + [4, 5] * 3


UNREADABLE = {
    "xgboost": (
        "if number == 3: library.DMatrix.get_float_info = None; matrix.set_weight(w)",
        "rounds of XGBoost are not recorded from here on: "
        "TypeError(\"'NoneType' object is not callable\")",
    ),
    "lightgbm": (
        "if number == 3: library.Booster.num_trees = None",
        "rounds of LightGBM are not recorded from here on: "
        "TypeError(\"'NoneType' object is not callable\")",
    ),
}


@each_library
def test_a_booster_that_cannot_be_read_is_trained_all_the_same(
    recorder: Recorder, library: str
) -> None:
    fault, note = UNREADABLE[library]
    folder, printed = recorder.run(script(library, fault=fault))
    assert (len(records(folder)), notes(folder)) == (2, [note])
    assert printed == recorder.run(script(library))[1]


LARGE = """
import resource, sys
import numpy as np, xgboost
data = np.ones((1_000_000, 16))
class Taken(Exception): pass
def taken(*_, **__): raise Taken
xgboost.core.DMatrix.set_info = taken
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
xgboost.core._from_array = taken
xgboost.data.dispatch_data_backend = xgboost.core.dispatch_data_backend = taken
try: xgboost.DMatrix(data)
except Taken: pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_the_data_is_digested_where_it_lies(recorder: Recorder) -> None:
    """128 MB of it, which XGBoost is kept from copying."""
    assert int(recorder.run(LARGE)[1]) < 10_000  # KiB


FROM_THE_CLOCK = """\
import sys, time

import numpy as np
import xgboost

features = np.random.RandomState(1).normal(size=(500, 10))
labels = (features[:, 0] > 0).astype(int)
matrix = xgboost.DMatrix(features, labels)
model = xgboost.Booster({"objective": "binary:logistic"}, [matrix])
for number in range(8):
    if number == 4:
        model.set_param("learning_rate", 0.1 + time.time() % 0.1)
    model.update(matrix, number)
model.save_model(sys.argv[1] + "/model.json")
"""


def test_verify_names_the_first_different_round(tiny: Tiny) -> None:
    recipe = RECIPE.partition("[data.numbers]")[0] + (
        '[stages.train]\nrun = ["python", "train.py", "{out}"]\n'
    )
    tiny.write("recipe.toml", recipe.replace("packages = []", 'packages = ["xgboost-cpu"]'))
    tiny.write("train.py", FROM_THE_CLOCK)
    tiny.build()
    ran = tiny.run("verify", "--explain")
    says = "first different round: 5 of 8: the settings of the booster (settings)"
    assert ran.code == 7, ran.err
    assert f"\n      {says}\n" in ran.out
    assert f"\n      not explained: {says}; only the operations of torch are recorded\n" in ran.out
