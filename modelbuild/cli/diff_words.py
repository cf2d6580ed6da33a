"""The words for one change between two locks, shared by the text and the markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from modelbuild.cli.render import size
from modelbuild.review.changes import Change, changes
from modelbuild.review.difference import ClaimState, StageDifference
from modelbuild.review.packages import PackageChange
from modelbuild.review.probes import ProbeChange, ProbeKind
from modelbuild.spec.lock import LockedData, LockedFile
from modelbuild.spec.recipe import ParamValue
from modelbuild.spec.toml_text import toml_value

MANY = 12
"""More lines than this are folded."""
_KINDS = {
    "up": "upgraded",
    "down": "downgraded",
    "moved": "moved",
    "other file": "with another file",
    "other bytes": "with other bytes",
}


def stage_words(stage: StageDifference) -> str:
    """`train  rebuilds: params.lr, data.digits`"""
    words = f"{stage.name}  {stage.kind}"
    return f"{words}: {', '.join(stage.reasons)}" if stage.reasons else words


def metric_words(stage: StageDifference) -> Iterator[str]:
    """`train  accuracy  0.97 -> 0.98  (+0.01, +1.0 %)`; nothing where there is no new claim."""
    if stage.new is None:
        return
    for metric in stage.metrics:
        noise = stage.noise.get(metric.name)
        words = f"{stage.name}  {metric.name}  {moved_number(metric)}"
        yield f"{words}, {noise}" if noise else words


def moved_number(metric: Change[float]) -> str:
    if metric.old is None or metric.new is None:
        value = metric.new if metric.old is None else metric.old
        return f"{value:.6g} ({'new' if metric.old is None else 'gone'})"
    if metric.old == metric.new:
        return f"{metric.new:.6g} (the same)"
    return f"{metric.old:.6g} -> {metric.new:.6g}  ({step(metric.old, metric.new)})"


def step(old: float, new: float) -> str:
    """`+0.01, +1.0 %`"""
    difference = new - old
    words = f"{difference:+.3g}"
    return f"{words}, {100 * difference / abs(old):+.1f} %" if old else words


def model_words(stage: StageDifference) -> Iterator[str]:
    """What the output weighs, where that moved."""
    old, new = stage.old, stage.new
    if new is None:
        return
    if old is None or old.bytes != new.bytes:
        before = f"{size(old.bytes)} -> " if old else ""
        yield f"{stage.name}  output  {before}{size(new.bytes)}"
    if new.parameters is not None and (old is None or old.parameters != new.parameters):
        before = f"{old.parameters:,} -> " if old and old.parameters is not None else ""
        yield f"{stage.name}  model  {before}{new.parameters:,} parameters"


def claim_words(stage: StageDifference, classes: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """What a reviewer must know before believing a metric."""
    if stage.state is ClaimState.STALE:
        yield f"{stage.name}  not built since the change: its claims are stale"
    elif stage.state is ClaimState.MISSING:
        yield f"{stage.name}  never built: there is no claim"
    old, new = stage.old, stage.new
    if old and new and old.output == new.output and stage.kind == "rebuilds":
        yield f"{stage.name}  came out identical from other inputs"
    if stage.other_class and old and new:
        facts = changes(classes[old.numeric_class], classes[new.numeric_class])
        named = ", ".join(value_words(fact) for fact in facts)
        yield f"{stage.name}  measured on another numeric class: {named}"


def value_words(change: Change[ParamValue] | Change[str]) -> str:
    """`lr  0.001 -> 0.002`"""
    if change.old is None:
        return f"{change.name}  {_value(change.new)} (new)"
    if change.new is None:
        return f"{change.name}  {_value(change.old)} (gone)"
    return f"{change.name}  {_value(change.old)} -> {_value(change.new)}"


def _value(value: ParamValue | None) -> str:
    if isinstance(value, str):
        return value or '""'
    return toml_value(value)


def data_words(change: Change[LockedData]) -> Iterator[str]:
    """Files, bytes and rows before and after; a second line for columns that came or went."""
    old, new = change.old, change.new
    if old is None or new is None:
        data = new or old
        assert data is not None
        yield f"{change.name}  {_extent(data)} ({'new' if old is None else 'gone'})"
        return
    if _extent(old) == _extent(new):
        how = "other content" if old.digest != new.digest else "declared otherwise"
        yield f"{change.name}  {_extent(new)} ({how})"
    else:
        yield f"{change.name}  {_extent(old)} -> {_extent(new)}"
    yield from column_words(change)
    if old.declared != new.declared:
        yield f"{change.name}  from: {old.declared} -> {new.declared}"
    if old.resolved != new.resolved:
        yield f"{change.name}  resolved: {old.resolved} -> {new.resolved}"


def column_words(change: Change[LockedData]) -> Iterator[str]:
    if not change.old or not change.new or change.old.columns == change.new.columns:
        return
    before, after = change.old.columns or (), change.new.columns or ()
    signed = [f"-{name}" for name in before if name not in after]
    signed += [f"+{name}" for name in after if name not in before]
    yield f"{change.name}  columns: {' '.join(signed) or 'in another order'}"


def _extent(data: LockedData) -> str:
    """`1,797 rows, 57.5 KiB`"""
    words = [] if data.files == 1 else [f"{data.files:,} files"]
    words += [] if data.rows is None else [f"{data.rows:,} rows"]
    return ", ".join([*words, size(data.bytes)])


def code_words(change: Change[LockedFile]) -> str:
    old, new = change.old, change.new
    if old is None or new is None:
        file = new or old
        assert file is not None
        return f"{change.name}  {file.lines} lines ({'new' if old is None else 'gone'})"
    if old.digest == new.digest:
        return f"{change.name}  {'now' if new.executable else 'no longer'} executable"
    return f"{change.name}  {old.lines} -> {new.lines} lines"


def probe_words(probes: Sequence[ProbeChange], *, everything: bool = False) -> Iterator[str]:
    """`733aa9dce364  2 new probes (digits, wine)`; what is an alarm is said as one, and listed
    with `everything`.
    """
    if everything:
        yield from (f"{each.numeric_class}  {_one_probe(each)}" for each in probes)
        return
    folded: dict[tuple[str, ProbeKind], list[ProbeChange]] = {}
    for each in probes:
        if not each.is_alarm:
            folded.setdefault((each.numeric_class, each.kind), []).append(each)
    for (key, kind), group in folded.items():
        recipes = sorted({name for each in group for name in each.recipes})
        whose = f" ({', '.join(recipes)})" if recipes else ""
        if kind is ProbeKind.NEW:
            yield f"{key}  {len(group)} new{whose}"
        else:
            yield f"{key}  {len(group)} with other settings, not to be compared{whose}"


def _one_probe(change: ProbeChange) -> str:
    """`3ac91d49be3f-x86-64-v3-2  other bits: lstm 05a1 -> 9b20`"""
    old, new = change.old, change.new
    words = f"{change.run}  {change.kind}"
    if not change.operations or not old or not new:
        return words
    moved = [
        f"{name} {old.operations.get(name, 'absent')} -> {new.operations.get(name, 'absent')}"
        for name in change.operations
    ]
    return f"{words}: {', '.join(moved)}"


def package_words(change: PackageChange) -> str:
    """`numpy  2.4.6 -> 2.5.0`, with what asks for a look."""
    old, new = change.old, change.new
    if old is None or new is None:
        wheel = new or old
        assert wheel is not None
        return f"{change.name}  {wheel.version} ({change.kind}, {wheel.licence})"
    if change.kind in ("other file", "other bytes"):
        words = f"{change.name}  {new.version}: {change.kind}"
    else:
        words = f"{change.name}  {old.version} -> {new.version}"
    words += " (down)" if change.kind == "down" else ""
    return f"{words}, licence {old.licence} -> {new.licence}" if change.other_licence else words


def package_counts(packages: Sequence[PackageChange]) -> str:
    """`200 packages: 190 upgraded, 6 added, 4 removed`"""
    counted = Counter(_KINDS.get(each.kind, each.kind) for each in packages)
    kinds = ", ".join(f"{count} {kind}" for kind, count in counted.most_common())
    return f"{len(packages)} packages: {kinds}"
