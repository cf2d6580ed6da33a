"""A stage's metrics: read from its JSON file, and held against claimed ones."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from modelbuild.spec.recipe import Tolerance

MAX_BYTES = 1_000_000
MAX_DEPTH = 32


def parse_metrics(data: bytes, where: str) -> dict[str, float]:
    """The numbers of a JSON object, as floats, sorted by name; nested objects give dotted names.

    Texts, truth values, nulls and lists are no metrics and are passed over. `where` names the
    file in messages. Raises ValueError for what is no JSON object, for a number that is not
    finite (Python writes those as NaN and Infinity, which JSON does not have), and for two
    metrics of one name.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"{where}: {len(data):,} bytes; a metrics file has at most {MAX_BYTES:,}")
    content = _json(data, where)
    if not isinstance(content, _Object):
        raise ValueError(f"{where}: not a JSON object")
    metrics: dict[str, float] = {}
    for name, value in sorted(_flatten(content, (), where)):
        if name in metrics:
            raise ValueError(f"{where}: two metrics are named {name!r}")
        metrics[name] = value
    return metrics


class _Object(list[tuple[str, object]]):
    """A JSON object with all its pairs: a dictionary would drop the first of two equal keys."""


def _json(data: bytes, where: str) -> object:
    try:
        return json.loads(data, object_pairs_hook=_Object)
    except RecursionError:
        raise ValueError(f"{where}: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{where}: not JSON: {error}") from None


def _flatten(content: _Object, parents: tuple[str, ...], where: str) -> Iterator[tuple[str, float]]:
    if len(parents) > MAX_DEPTH:
        raise ValueError(f"{where}: nested too deeply")
    for key, value in content:
        path = (*parents, key)
        if isinstance(value, _Object):
            yield from _flatten(value, path, where)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            name = ".".join(path)
            yield name, _finite(value, name, where)


def _finite(value: float, name: str, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{where}: {name!r} is {number}; a metric must be a finite number")
    return number


class MetricAgreement(StrEnum):
    """How a metric relates to the claimed one."""

    IDENTICAL = "identical"
    WITHIN_TOLERANCE = "within tolerance"
    DIFFERENT = "different"
    MISSING = "missing"
    """Claimed, and not found."""
    NEW = "new"
    """Found, and not claimed."""


_GOOD = (MetricAgreement.IDENTICAL, MetricAgreement.WITHIN_TOLERANCE)


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricComparison:
    name: str
    agreement: MetricAgreement
    claimed: float | None
    found: float | None
    tolerance: Tolerance | None
    """None: none is declared, so only the same number is good."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricsComparison:
    metrics: tuple[MetricComparison, ...]
    """Sorted by name."""

    @property
    def deciding(self) -> Sequence[MetricComparison]:
        """The metrics with a declared tolerance; all of them where none has one."""
        return [metric for metric in self.metrics if metric.tolerance] or self.metrics

    @property
    def within(self) -> bool:
        """Whether every deciding metric is within its tolerance, and there is one."""
        deciding = self.deciding
        return bool(deciding) and all(metric.agreement in _GOOD for metric in deciding)


def compare_metrics(
    claimed: Mapping[str, float], found: Mapping[str, float], tolerances: Mapping[str, Tolerance]
) -> MetricsComparison:
    """Each metric of either side.

    A metric is within its tolerance if it lies at most `abs`, or at most `rel` times the claimed
    one's magnitude, above or below; both ends are good. Numbers count as they are written: 0.302
    is within 0.002 of 0.3, although the difference of the binary numbers is larger.
    """
    return MetricsComparison(
        metrics=tuple(
            _compare(name, claimed.get(name), found.get(name), tolerances.get(name))
            for name in sorted(claimed.keys() | found.keys())
        )
    )


def _compare(
    name: str, claimed: float | None, found: float | None, tolerance: Tolerance | None
) -> MetricComparison:
    if claimed is None:
        agreement = MetricAgreement.NEW
    elif found is None:
        agreement = MetricAgreement.MISSING
    elif claimed == found:
        agreement = MetricAgreement.IDENTICAL
    elif tolerance and _within(claimed, found, tolerance):
        agreement = MetricAgreement.WITHIN_TOLERANCE
    else:
        agreement = MetricAgreement.DIFFERENT
    return MetricComparison(
        name=name, agreement=agreement, claimed=claimed, found=found, tolerance=tolerance
    )


def _within(claimed: float, found: float, tolerance: Tolerance) -> bool:
    from fractions import Fraction  # costs start-up time

    if not all(map(math.isfinite, (claimed, found, tolerance.abs, tolerance.rel))):
        return False
    wanted, got = Fraction(repr(claimed)), Fraction(repr(found))
    largest = max(Fraction(repr(tolerance.abs)), Fraction(repr(tolerance.rel)) * abs(wanted))
    return abs(got - wanted) <= largest
