"""What to expect of a result on another numeric class, before it is there.

The class gives a reason, the probes a forecast. Bits are compared all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from modelbuild.spec.canonical import Json
from modelbuild.spec.probes import Probes

ABSENT = "absent"


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectation:
    first_class: str
    second_class: str
    """Of this machine."""
    facts: Mapping[str, tuple[str, str]]
    """Those that differ, as the first class has them and the second."""
    probed: int
    """Operations that were probed on both."""
    differing: tuple[str, ...] | None
    """Operations that gave other bits; None where one of the classes has no probes."""

    @property
    def bits(self) -> str | None:
        """`identical`, `different`, or None where nothing is known."""
        if self.differing is None:
            return None
        return "different" if self.differing else "identical"

    def __str__(self) -> str:
        classes = f"the first result is of numeric class {self.first_class}, this machine of "
        classes += f"{self.second_class}; other facts: {', '.join(self.facts)}; "
        if self.differing is None:
            return f"{classes}no probes to compare: bits may differ"
        if not self.differing:
            same = f"all {self.probed} probes give" if self.probed > 1 else "the one probe gives"
            return f"{classes}{same} the same bits: expect identical bits"
        return (
            f"{classes}{len(self.differing)} of {self.probed} probes"
            f" ({', '.join(self.differing)}) give other bits: expect different bits"
        )

    def to_json(self) -> dict[str, Json]:
        return {
            "first_class": self.first_class,
            "second_class": self.second_class,
            "facts": {name: list(values) for name, values in self.facts.items()},
            "bits": self.bits,
            "differing_probes": None if self.differing is None else list(self.differing),
            "probes": self.probed,
        }


@dataclass(frozen=True, slots=True)
class ClassKnown:
    """What is known of one side."""

    key: str
    facts: Mapping[str, str]
    probes: Probes | None


def expectation(first: ClassKnown, second: ClassKnown) -> Expectation:
    """`second` is this machine's; its probes are of the same settings as those of `first`."""
    names = sorted({*first.facts, *second.facts})
    both = {name: (first.facts.get(name, ABSENT), second.facts.get(name, ABSENT)) for name in names}
    probed, differing = 0, None
    if first.probes and second.probes:
        differing = second.probes.differing(first.probes)
        probed = len({*first.probes.operations, *second.probes.operations})
    return Expectation(
        first_class=first.key,
        second_class=second.key,
        facts={name: values for name, values in both.items() if values[0] != values[1]},
        probed=probed,
        differing=differing,
    )


def forecast(
    known: Mapping[str, Mapping[str, str]],
    here: ClassKnown,
    probes_of: Callable[[str], Probes | None],
) -> Expectation:
    """Of several classes, by key and facts, one that promises identical bits, else the first."""
    found = [
        expectation(ClassKnown(key, facts, probes_of(key)), here) for key, facts in known.items()
    ]
    return next((each for each in found if each.bits == "identical"), found[0])
