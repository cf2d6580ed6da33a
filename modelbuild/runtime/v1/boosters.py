"""What `rounds.py` reads of a booster, for each library.

No scores are asked for where that would compute or draw anything that the training does not.
"""

from __future__ import annotations

import ctypes
import json
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from modelbuild.runtime.v1.rounds import Training

    def beside(name: str) -> dict[str, Any]:
        """That of `bootstrap.py`, which puts it here."""
        ...


SCORES = b"""{"type": 1, "training": false, "strict_shape": false,
 "iteration_begin": 0, "iteration_end": 0}"""
"""Of which sort, and of which rounds: all."""
SELDOM = 5


class XGBoost:
    """The scores of all rows, which it keeps to go on from: its own method takes ten times as long.

    `dart` keeps none, and where processes share the rows a prediction may ask the others: there
    the new trees are read, which takes longer, in every fifth round. Of a linear model the weights.
    """

    NAME = "XGBoost"
    LABELS = ("label", "weight", "base_margin", "label_lower_bound", "label_upper_bound")

    def __init__(self, core: Any, crc32: Callable[..., int]) -> None:
        self.core = core
        self.crc32 = crc32
        self.memory = beside("digests")["memory"]
        self.shape = ctypes.POINTER(ctypes.c_uint64)()
        self.dimensions = ctypes.c_uint64()
        self.scores = ctypes.POINTER(ctypes.c_float)()

    def rounds(self) -> list[tuple[Any, str]]:
        return [(self.core.Booster, "update"), (self.core.Booster, "boost")]

    def givers(self) -> list[tuple[Any, str]]:
        names = ("DMatrix", "QuantileDMatrix", "ExtMemQuantileDMatrix")
        owners = [getattr(self.core, name, None) for name in names]
        return [(owner, "__init__") for owner in owners if owner and "__init__" in vars(owner)]

    def labellers(self) -> list[tuple[Any, str]]:
        matrix = self.core.DMatrix
        return [(matrix, name) for name in vars(matrix) if name.startswith("set_")]

    def setters(self) -> list[tuple[Any, str]]:
        return [(self.core.Booster, "set_param"), (self.core.Booster, "load_config")]

    def given(self, _: Any, args: Any, kwargs: Any) -> Any:
        return args[0] if args else kwargs.get("data")

    def matrix(self, _: Any, args: Any, kwargs: Any) -> Any:
        return args[0] if args else kwargs["dtrain"]

    def labels(self, matrix: Any, crc: int) -> int:
        for name in self.LABELS:
            crc = self.crc32(matrix.get_float_info(name), crc)
        return crc

    def due(self, training: Training, every: int) -> bool:
        if training.kind == "trees":
            every = max(every, SELDOM)
        return training.rounds == 1 or training.rounds % every == 0

    def made(self, booster: Any, matrix: Any, training: Training) -> int:
        if training.changed:
            self.read_settings(booster, training)
            training.changed = False
        if training.kind == "weights":
            return self.crc32(booster.save_raw("ubj"))
        if training.kind == "scores":
            return self.of_scores(booster, matrix)
        rounds = booster.num_boosted_rounds()
        return self.crc32(booster[rounds - 1 : rounds].save_raw("ubj"))

    def of_scores(self, booster: Any, matrix: Any) -> int:
        self.core._check_call(
            self.core._LIB.XGBoosterPredictFromDMatrix(
                booster.handle,
                matrix.handle,
                SCORES,
                ctypes.byref(self.shape),
                ctypes.byref(self.dimensions),
                ctypes.byref(self.scores),
            )
        )
        size = ctypes.sizeof(ctypes.c_float)
        for axis in range(self.dimensions.value):
            size *= self.shape[axis]
        return self.crc32(self.memory(ctypes.addressof(self.scores.contents), size))

    def read_settings(self, booster: Any, training: Training) -> None:
        config = json.loads(booster.save_config())["learner"]
        numbers = config.pop("generic_param")
        kinds = {"gbtree": "scores", "gblinear": "weights"}
        kind = kinds.get(config["gradient_booster"]["name"], "trees")
        training.kind = "trees" if kind == "scores" and self._distributed() else kind
        seeds = {name: numbers.pop(name) for name in sorted(numbers) if "seed" in name}
        numbers.pop("random_state", None)
        config.pop("learner_model_param")  # the data's own: how many columns, where to start from
        training.seeds = self.crc32(json.dumps(seeds).encode())
        training.settings = self.crc32(json.dumps([config, numbers], sort_keys=True).encode())

    def _distributed(self) -> bool:
        collective = sys.modules.get("xgboost.collective")
        return collective is not None and collective.get_world_size() > 1


class LightGBM:
    """The trees of every fifth round, as it would write them into a file; in between a leaf.

    To write the trees takes 4 % of a round of 5 ms. To ask for its scores takes more, and has
    `dart` draw which trees to drop.
    """

    NAME = "LightGBM"
    LABELS = ("label", "weight", "init_score", "group")

    def __init__(self, basic: Any, crc32: Callable[..., int]) -> None:
        self.basic = basic
        self.crc32 = crc32
        self.room = 1 << 14
        self.read = self.settings = self.seeds = 0
        """Of the settings that were written last."""

    def rounds(self) -> list[tuple[Any, str]]:
        return [(self.basic.Booster, "update")]

    def givers(self) -> list[tuple[Any, str]]:
        return [(self.basic.Dataset, "construct")]

    def labellers(self) -> list[tuple[Any, str]]:
        return [(self.basic.Dataset, "set_field")]

    def setters(self) -> list[tuple[Any, str]]:
        return [(self.basic.Booster, "reset_parameter")]

    def given(self, dataset: Any, *_: Any) -> Any:
        return dataset.data, dataset.used_indices

    def matrix(self, booster: Any, *_: Any) -> Any:
        return booster.train_set

    def labels(self, dataset: Any, crc: int) -> int:
        for name in self.LABELS:
            values = dataset.get_field(name)
            crc = self.crc32(b"none" if values is None else values.tobytes(), crc)
        return crc

    def due(self, training: Training, every: int) -> bool:
        return training.rounds == 1 or training.rounds % every == 0

    def made(self, booster: Any, _: Any, training: Training) -> int:
        """Before the trees stand the features; after them how often each is used, and settings."""
        if not training.changed and training.rounds % SELDOM:
            return self._leaf(booster)
        training.changed = False
        trees, _, rest = self._written(booster).partition(b"\nend of trees")
        parameters = rest.partition(b"\nparameters:")[2]
        read = self.crc32(parameters)
        if read != self.read:
            self.read = read
            lines = [each for each in parameters.splitlines() if b"[num_iterations:" not in each]
            self.settings = self.crc32(b"\n".join(lines))
            self.seeds = self.crc32(b"\n".join(each for each in lines if b"seed" in each))
        training.settings, training.seeds = self.settings, self.seeds
        return self.crc32(trees[trees.find(b"\nTree=") :])

    def _leaf(self, booster: Any) -> int:
        """The first of the last tree, by the library's own function: its method takes longer."""
        value = ctypes.c_double(0)
        self.basic._safe_call(
            self.basic._LIB.LGBM_BoosterGetLeafValue(
                handle_of(booster),
                ctypes.c_int(booster.num_trees() - 1),
                ctypes.c_int(0),
                ctypes.byref(value),
            )
        )
        return self.crc32(value)

    def _written(self, booster: Any) -> bytes:
        """The last round's trees, without the mebibyte that the library's own method fills."""
        needed = ctypes.c_int64(0)
        while True:
            room = self.room
            text = ctypes.create_string_buffer(room)
            self.basic._safe_call(
                self.basic._LIB.LGBM_BoosterSaveModelToString(
                    handle_of(booster),
                    ctypes.c_int(booster.current_iteration() - 1),
                    ctypes.c_int(1),
                    ctypes.c_int(0),
                    ctypes.c_int64(room),
                    ctypes.byref(needed),
                    text,
                )
            )
            if needed.value <= room:
                return ctypes.string_at(text, needed.value)
            self.room = 2 * needed.value


def handle_of(booster: Any) -> Any:
    """That of LightGBM 4, or of an older one."""
    return getattr(booster, "_handle", None) or booster.handle
