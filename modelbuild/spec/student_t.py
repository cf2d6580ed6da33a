"""Student's t-distribution for whole degrees of freedom, in closed form.

Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 (odd) and 26.7.4 (even).
"""

from __future__ import annotations

import math


def within(t: float, degrees: int) -> float:
    """The probability that |T| is at most `t`, which is not negative."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine = math.cos(angle)
    odd = degrees % 2 == 1
    # odd: cos + 2/3 cos^3 + 2*4/(3*5) cos^5 ...; even: 1 + 1/2 cos^2 + 1*3/(2*4) cos^4 ...
    term = cosine if odd else 1.0
    terms = []
    for power in range(3 if odd else 2, degrees, 2):
        terms.append(term)
        term *= cosine * cosine * (power - 1) / power
    if degrees > 1:
        terms.append(term)
    series = math.sin(angle) * math.fsum(terms)
    return min(1.0, 2 / math.pi * (angle + series) if odd else series)


def two_sided(t: float, degrees: int) -> float:
    """The probability of a |T| of at least |t|: the p value of a two-sided test."""
    return max(0.0, 1.0 - within(abs(t), degrees))


def quantile(degrees: int, probability: float = 0.95) -> float:
    """The `t` that |T| does not exceed with this probability: 4.303 for 2 and 0.95."""
    low, high = 0.0, 1.0
    while within(high, degrees) < probability:
        high *= 2
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if within(middle, degrees) < probability:
            low = middle
        else:
            high = middle
