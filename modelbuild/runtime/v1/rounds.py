"""Records each round of XGBoost and LightGBM: data, random numbers, settings, and what it made.

1. The data is digested where the script hands it over, labels and weights where they are set: a
   booster keeps neither as it was given.
2. The rest is read when a round has ended, by `boosters.py`.
3. A booster that can't be read is recorded no further, with a note. The training goes on.
"""

from __future__ import annotations

import atexit
import weakref
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from modelbuild.runtime.v1.trace_file import Book, Lineage

    def beside(name: str) -> dict[str, Any]:
        """That of `bootstrap.py`, which puts it here."""
        ...


_file = beside("trace_file")
pickled = beside("fits")["pickled"]


class Data:
    """What is known of a matrix."""

    def __init__(self, given: int) -> None:
        self.given = given
        self.labels: int | None = None
        """With weights and the like; None where they were set since."""


class Training:
    """What is known of a booster."""

    number = 0
    """By the order of their first rounds."""
    rounds = 0
    seeds = 0
    settings = 0
    changed = True
    """Whether settings may have been changed since they were read."""
    running = False
    kind = ""
    """What is read of it, where there are several kinds."""


class Rounds:
    """The boosters of one library."""

    def __init__(self, reader: Any, book: Book) -> None:
        self.reader = reader
        self.book = book
        self.generators = beside("digests")["Generators"](None)
        self.data: Any = weakref.WeakKeyDictionary()
        self.trainings: Any = weakref.WeakKeyDictionary()
        self.stopped = False
        self.begun = 0

    def safely(self, act: Callable[..., None]) -> Callable[..., None]:
        def safe(*args: Any) -> None:
            if self.stopped or self.book.stopped:
                return
            try:
                act(*args)
            except Exception as error:  # whatever another version of the library does
                self.stopped = True
                name = self.reader.NAME
                self.book.note(f"rounds of {name} are not recorded from here on: {error!r}")

        return safe

    def install(self) -> None:
        reader = self.reader
        for owner, name in reader.rounds():
            setattr(owner, name, self.watched(getattr(owner, name)))
        for act, methods in (
            (self.giving, reader.givers()),
            (self.labelling, reader.labellers()),
            (self.setting, reader.setters()),
        ):
            for owner, name in methods:
                setattr(owner, name, announced(getattr(owner, name), self.safely(act)))

    def giving(self, matrix: Any, args: Any, kwargs: Any) -> None:
        """A matrix is about to be made."""
        if matrix not in self.data:
            self.data[matrix] = Data(pickled(self.reader.given(matrix, args, kwargs)))

    def labelling(self, matrix: Any, *_: Any) -> None:
        if matrix in self.data:
            self.data[matrix].labels = None

    def setting(self, booster: Any, *_: Any) -> None:
        self.training(booster).changed = True

    def training(self, booster: Any) -> Training:
        known: Training | None = self.trainings.get(booster)
        if known is None:
            known = self.trainings[booster] = Training()
        return known

    def watched(self, update: Callable[..., Any]) -> Callable[..., Any]:
        """Recorded, but for a round that is a part of another method's."""
        from functools import wraps

        ended = self.safely(self.ended)

        @wraps(update)
        def call(booster: Any, *args: Any, **kwargs: Any) -> Any:
            training = self.training(booster)
            if training.running:
                return update(booster, *args, **kwargs)
            training.running = True
            try:
                result = update(booster, *args, **kwargs)
            finally:
                training.running = False
            ended(booster, training, args, kwargs)
            return result

        return call

    def ended(self, booster: Any, training: Training, args: Any, kwargs: Any) -> None:
        training.rounds += 1
        if training.rounds == 1:
            self.begun += 1
            training.number = self.begun
        matrix = self.reader.matrix(booster, args, kwargs)
        made, has = 0, _file["BATCH"]
        if self.reader.due(training, self.book.every):
            made = self.reader.made(booster, matrix, training)
            has |= _file["GRADIENTS"] | _file["PARAMETERS"]
        generators = self.generators
        columns = [
            *(_file["ROUND"], has, training.number & 0xFFFF, 1, 0, self.batch(matrix)),
            *(generators.python(), generators.numpy(), training.seeds),
            *(0, training.settings, made, float("nan")),
        ]
        self.book.write(_file["RECORD"].pack(*columns))

    def batch(self, matrix: Any) -> int:
        data = self.data.get(matrix)
        if data is None:  # a copy, or a part of another one
            data = self.data[matrix] = Data(0)
        if data.labels is None:
            data.labels = self.reader.labels(matrix, data.given)
        return int(data.labels)


def announced(method: Callable[..., Any], act: Callable[..., None]) -> Callable[..., Any]:
    """A method before which `act` is called."""
    from functools import wraps

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        act(self, args, kwargs)
        return method(self, *args, **kwargs)

    return call


def install(module: Any, lineage: Lineage, library: str) -> None:
    """Record the rounds of a library, if the stage is asked to."""
    request = _file["read_request"]()
    if request.get("every"):
        book = _file["book_of"](lineage, request)
        rounds = Rounds(beside("boosters")[library](module, zlib.crc32), book)
        rounds.safely(rounds.install)()
        atexit.register(_file["safely"](book, book.flush))
