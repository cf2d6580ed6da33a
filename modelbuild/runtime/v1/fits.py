"""Records each outermost `fit` of scikit-learn: data, random numbers, and what came of it."""

from __future__ import annotations

import sys
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from modelbuild.runtime.v1.trace_file import Book, Lineage

    def beside(name: str) -> dict[str, Any]:
        """That of `bootstrap.py`, which puts it here."""
        ...


class Digest:
    """A file that keeps nothing of what is written but its CRC-32."""

    def __init__(self) -> None:
        self.crc = 0

    def write(self, data: Any) -> int:
        self.crc = zlib.crc32(data, self.crc)
        return memoryview(data).nbytes


def pickled(value: Any) -> int:
    """The digest of all that a value holds; 0 for one that can't be pickled."""
    import pickle

    digest = Digest()
    try:
        pickle.Pickler(digest, 5).dump(value)
    except Exception:  # whatever a class of the script raises
        return 0
    return digest.crc


class Fits:
    """Wraps the decorator that every public `fit` of scikit-learn has."""

    def __init__(self, book: Book) -> None:
        file = beside("trace_file")
        self.record, self.kind = file["RECORD"], file["FIT"]
        self.has = file["BATCH"] | file["PARAMETERS"]
        self.book = book
        self.generators = beside("digests")["Generators"](sys.modules.get("torch"))
        self.fitted = file["safely"](book, self._fitted)
        self.inside = False

    def decorator(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        from functools import wraps

        @wraps(plain)
        def fit_context(**options: Any) -> Callable[..., Any]:
            decorate = plain(**options)

            def decorated(method: Callable[..., Any]) -> Callable[..., Any]:
                return self.watched(decorate(method))

            return decorated

        return fit_context

    def watched(self, fit: Callable[..., Any]) -> Callable[..., Any]:
        from functools import wraps

        @wraps(fit)
        def call(estimator: Any, *args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return fit(estimator, *args, **kwargs)
            self.inside = True
            try:
                result = fit(estimator, *args, **kwargs)
                self.fitted(estimator, args, kwargs)
                return result
            finally:
                self.inside = False

        return call

    def _fitted(self, estimator: Any, args: Any, kwargs: Any) -> None:
        data, model = pickled((args, kwargs)), pickled(estimator)
        generators = self.generators
        random = (generators.python(), generators.numpy(), 0)
        columns = (self.kind, self.has, 0, 1, 0, data, *random, 0, 0, model, float("nan"))
        self.book.write(self.record.pack(*columns))


def install(base: Any, lineage: Lineage) -> None:
    file = beside("trace_file")
    request = file["read_request"]()
    if request.get("every"):
        book = file["book_of"](lineage, request)
        base._fit_context = Fits(book).decorator(base._fit_context)
        import atexit

        atexit.register(file["safely"](book, book.flush))
