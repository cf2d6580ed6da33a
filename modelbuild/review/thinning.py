"""A curve of any length in a bounded number of points, with its peaks."""

from __future__ import annotations

from typing import TypeAlias

Point: TypeAlias = tuple[float, float]
"""Place on the axis, and value."""

MOST_BUCKETS = 200

_Numbered: TypeAlias = tuple[int, float, float]
"""A point and its number in the log."""


class Thinner:
    """Keeps the lowest and the highest value of each run of neighbours.

    Buckets hold equally many neighbours each; when there are too many buckets, two become one. A
    log of at most 2 * MOST_BUCKETS values is kept whole.
    """

    def __init__(self, place: float, value: float) -> None:
        self.values = 0
        self.first = (place, value)
        self.last = self.lowest = self.highest = self.first
        self._width = 2
        self._buckets: list[tuple[_Numbered, _Numbered]] = []
        self.add(place, value)

    def add(self, place: float, value: float) -> None:
        point = (self.values, place, value)
        if self.values % self._width == 0:
            self._make_room()
            self._buckets.append((point, point))
        else:
            low, high = self._buckets[-1]
            # Of equal ones the later is the high one: two points of a bucket are never lost.
            self._buckets[-1] = (
                point if value < low[2] else low,
                point if value >= high[2] else high,
            )
        self.values += 1
        self.last = (place, value)
        if value < self.lowest[1]:
            self.lowest = self.last
        if value > self.highest[1]:
            self.highest = self.last

    def _make_room(self) -> None:
        if len(self._buckets) < MOST_BUCKETS:
            return
        pairs = zip(self._buckets[::2], self._buckets[1::2], strict=True)
        self._buckets = [
            (min(a[0], b[0], key=_value), max(a[1], b[1], key=_value)) for a, b in pairs
        ]
        self._width *= 2

    def points(self) -> tuple[Point, ...]:
        """In the order of the log, its two ends among them."""
        kept = {point for bucket in self._buckets for point in bucket}
        kept |= {(0, *self.first), (self.values - 1, *self.last)}
        return tuple((place, value) for _, place, value in sorted(kept))


def _value(point: _Numbered) -> float:
    return point[2]
