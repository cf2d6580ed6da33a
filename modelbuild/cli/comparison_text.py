"""A comparison of two outputs as a reader sees it in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from modelbuild.verify.comparison import (
    FileComparison,
    LineComparison,
    Status,
    TensorComparison,
    TensorDifference,
    TreeComparison,
    ValueComparison,
)

SHOWN_TENSORS = 10
SHOWN_VALUES = 5
SHOWN_FILES = 50
_NAME_LENGTH = 100


def comparison_text(comparison: TreeComparison) -> str:
    """For a terminal: a line a file that differs, below it what in it differs."""
    if comparison.identical:
        return f"identical: {_counted(len(comparison.files), 'file')}"
    differing = [file for file in comparison.files if file.status is not Status.SAME]
    lines = [line for file in differing[:SHOWN_FILES] for line in _file_lines(file)]
    if len(differing) > SHOWN_FILES:
        lines.append(f"and {_counted(len(differing) - SHOWN_FILES, 'more file')} that differ")
    same = len(comparison.files) - len(differing)
    if same:
        lines.append(f"the same in both: {_counted(same, 'file')}")
    return "\n".join(lines)


def _file_lines(file: FileComparison) -> Iterator[str]:
    heading = f"{_printable(file.path)}  {file.status}"
    yield f"{heading}: {_printable(file.note)}" if file.note else heading
    if file.line:
        yield from _text_lines(file.line)
    elif file.offset is not None:
        yield f"  first different byte: {file.offset:,}"
    yield from _folded([_tensor_line(t) for t in file.tensors], SHOWN_TENSORS, "tensor")
    yield from _folded([_value_line(value) for value in file.values], SHOWN_VALUES, "value")


def _text_lines(line: LineComparison) -> Iterator[str]:
    yield f"  line {line.number:,}"
    yield f"    first:  {_printable(line.first) if line.first is not None else '(the end)'}"
    yield f"    second: {_printable(line.second) if line.second is not None else '(the end)'}"


def _folded(lines: Sequence[str], shown: int, noun: str) -> Iterable[str]:
    yield from lines[:shown]
    if len(lines) > shown:
        yield f"  and {_counted(len(lines) - shown, f'more {noun}')}"


def _tensor_line(tensor: TensorComparison) -> str:
    name = _printable(tensor.name) or "(unnamed)"
    if tensor.difference:
        return f"  {name}  {tensor.first}  {_difference(tensor.difference)}"
    if tensor.status is Status.OTHER_KIND:
        return f"  {name}  {tensor.first} in first, {tensor.second} in second"
    note = f": {_printable(tensor.note)}" if tensor.note else ""
    return f"  {name}  {tensor.first or tensor.second}  {tensor.status}{note}"


def _value_line(value: ValueComparison) -> str:
    sides = [
        _printable(side) if side is not None else "(nothing)"
        for side in (value.first, value.second)
    ]
    return f"  {_printable(value.name) or '(the whole)'}  {sides[0]} in first, {sides[1]} in second"


def _difference(found: TensorDifference) -> str:
    verb = "differs" if found.differing == 1 else "differ"
    parts = [f"{found.differing:,} of {_counted(found.values, 'value')} {verb}"]
    largest = []
    if found.largest_abs is not None:
        largest.append(f"{_number(found.largest_abs)} abs")
    if found.largest_rel is not None:
        largest.append(f"{found.largest_rel:.2g} rel")
    if found.largest_ulps is not None:
        largest.append(f"{found.largest_ulps:,} ulp")
    if largest:
        parts.append(f"at most {', '.join(largest)}")
    if found.not_finite:
        parts.append(f"{found.not_finite:,} not finite")
    if found.measured < found.differing and (largest or found.not_finite):
        parts[-1] += f" (of the first {found.measured:,} differing values)"
    if found.first:
        parts.append(f"first at [{','.join(map(str, found.first))}]")
    return ", ".join(parts)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.2g}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _printable(text: str) -> str:
    """One short line: names and texts come from the files that are compared."""
    short = text if len(text) <= _NAME_LENGTH else f"{text[:_NAME_LENGTH]}..."
    return "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in short
    )
