"""What a comparison of two outputs found, as records and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from modelbuild.spec.canonical import Json


class Status(StrEnum):
    """How a file, or a tensor, of the first output relates to the second's."""

    SAME = "same"
    DIFFERENT = "different"
    ONLY_FIRST = "only in first"
    ONLY_SECOND = "only in second"
    OTHER_KIND = "other kind"
    """A file's mode, link or type; a tensor's type or shape."""
    NOT_COMPARED = "not compared"
    """A tensor whose values can't be had."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorDifference:
    """How the values of a tensor of one type and shape differ, bit by bit.

    A NaN is the same as one with the same bits. Largest differences are over those values that
    are finite on both sides; for integers only `largest_abs` is known, for bits nothing.
    Of a complex value, real and imaginary part are a value each.
    """

    differing: int
    values: int
    first: tuple[int, ...]
    """Index of the first that differs, in the order of the file."""
    measured: int
    """The largest differences are over so many of the differing values, the first ones."""
    largest_abs: float | int | None = None
    largest_rel: float | None = None
    """Over the larger of both magnitudes."""
    largest_ulps: int | None = None
    """How many values of the type lie between, plus one; 0 between 0.0 and -0.0."""
    not_finite: int = 0
    """Differing values, of those measured, that are NaN or infinite on either side."""

    def to_json(self) -> dict[str, Json]:
        return {
            "differing": self.differing,
            "values": self.values,
            "first": list(self.first),
            "measured": self.measured,
            "largest_abs": self.largest_abs,
            "largest_rel": self.largest_rel,
            "largest_ulps": self.largest_ulps,
            "not_finite": self.not_finite,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorComparison:
    """One tensor of two files."""

    name: str
    status: Status
    first: str | None
    """Type and shape, as in `float32[64,32]`; None where it is not there."""
    second: str | None
    difference: TensorDifference | None = None
    note: str | None = None
    """Why the values could not be compared."""

    def to_json(self) -> dict[str, Json]:
        return {
            "name": _encodable(self.name),
            "status": self.status.value,
            "first": _encodable(self.first),
            "second": _encodable(self.second),
            "difference": self.difference.to_json() if self.difference else None,
            "note": _encodable(self.note),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueComparison:
    """What a file of tensors holds besides: metadata, an epoch, options. As text."""

    name: str
    first: str | None
    second: str | None

    def to_json(self) -> dict[str, Json]:
        return {
            "name": _encodable(self.name),
            "first": _encodable(self.first),
            "second": _encodable(self.second),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class LineComparison:
    """The first line of a text that differs, from 1. Long lines are cut around the difference."""

    number: int
    first: str | None
    """None where the text has ended."""
    second: str | None

    def to_json(self) -> dict[str, Json]:
        return {
            "number": self.number,
            "first": _encodable(self.first),
            "second": _encodable(self.second),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class FileComparison:
    """One path of two outputs."""

    path: str
    """Relative, with `/`. Bytes that are not UTF-8 are surrogates, as in `os.fsdecode`."""
    status: Status
    note: str | None = None
    """What there is to say in words: other modes, same tensors but other bytes, why a file of
    tensors was compared as bytes."""
    offset: int | None = None
    """Of the first byte that differs."""
    line: LineComparison | None = None
    tensors: tuple[TensorComparison, ...] = ()
    """Those that are not the same."""
    same_tensors: int = 0
    values: tuple[ValueComparison, ...] = ()
    """Those that are not the same."""

    def to_json(self) -> dict[str, Json]:
        return {
            "path": _encodable(self.path),
            "status": self.status.value,
            "note": _encodable(self.note),
            "offset": self.offset,
            "line": self.line.to_json() if self.line else None,
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "same_tensors": self.same_tensors,
            "values": [value.to_json() for value in self.values],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeComparison:
    """Two outputs, path by path."""

    files: tuple[FileComparison, ...] = field(default=())
    """Sorted by path, the same ones included."""

    @property
    def identical(self) -> bool:
        """Whether all paths, contents, modes and links are the same: bit for bit."""
        return self.first_difference is None

    @property
    def first_difference(self) -> FileComparison | None:
        return next((file for file in self.files if file.status is not Status.SAME), None)

    def to_json(self) -> dict[str, Json]:
        """`{"identical": bool, "same_files": n, "files": [...]}`: the files that differ."""
        differing = [file for file in self.files if file.status is not Status.SAME]
        return {
            "identical": self.identical,
            "same_files": len(self.files) - len(differing),
            "files": [file.to_json() for file in differing],
        }


def _encodable(text: str | None) -> str | None:
    """Names may hold surrogates, which no encoding takes."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()
