"""Records of single answers, and the rows of a table made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cacheflow_ray.world import KINDS

#: Of a normal distribution, for 95 % intervals.
_Z = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One question answered in one way.

    Args:
        question: which (stream's seed, number): the same for every method.
        found: of each event needed whether it was attended to; None where that has no meaning.
        deciles: in which tenth of the stream each event starts, 0..9.
        total_tokens: patches of all the stream's frames.
    """

    method: str
    frames: int
    top_k: int
    question: tuple[int, int]
    kind: str
    right: bool
    found: tuple[bool, ...] | None
    deciles: tuple[int, ...]
    tokens: int
    kept_tokens: int
    total_tokens: int
    drop_rate: float
    index_bytes_per_block: float
    ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method at one length. Shares 0..1; `ci`: 95 % interval of the accuracy (Wilson).

    Args:
        recall: share of the needed events that were attended to; None where nothing is retrieved.
        recall_by_decile: by where in the stream the event starts.
        behind: how far its accuracy lies below `ours` on the same questions, with a paired 95 % interval.
    """

    method: str
    frames: int
    top_k: int
    accuracy: float
    ci: tuple[float, float]
    by_kind: dict[str, float]
    recall: float | None
    recall_by_decile: tuple[float | None, ...]
    tokens_attended: float
    attended_share: float
    drop_rate: float
    index_bytes_per_block: float
    ms: float
    n: int
    behind: tuple[float, float, float] | None


def make_rows(records: Sequence[Record], reference: str = "ours") -> list[Row]:
    """One row per (frames, method, top_k), in the order they first appear."""
    groups: dict[tuple[int, str, int], list[Record]] = {}
    for record in records:
        groups.setdefault((record.frames, record.method, record.top_k), []).append(record)
    return [_row(group, groups.get((key[0], reference, key[2]), [])) for key, group in groups.items()]


def _row(group: Sequence[Record], reference: Sequence[Record]) -> Row:
    first = group[0]
    kinds = {kind: [record.right for record in group if record.kind == kind] for kind in KINDS}
    events = [
        pair for record in group if record.found is not None for pair in zip(record.found, record.deciles, strict=True)
    ]
    return Row(
        method=first.method,
        frames=first.frames,
        top_k=first.top_k,
        accuracy=_mean([record.right for record in group]),
        ci=wilson(sum(record.right for record in group), len(group)),
        by_kind={kind: _mean(right) for kind, right in kinds.items() if right},
        recall=_mean([found for found, _ in events]) if events else None,
        recall_by_decile=tuple(_share([found for found, at in events if at == decile]) for decile in range(10)),
        tokens_attended=_mean([record.tokens for record in group]),
        attended_share=_mean([record.tokens / max(record.kept_tokens, 1) for record in group]),
        drop_rate=_mean([record.drop_rate for record in group]),
        index_bytes_per_block=_mean([record.index_bytes_per_block for record in group]),
        ms=_mean([record.ms for record in group]),
        n=len(group),
        behind=paired(reference, group) if reference and reference[0].method != first.method else None,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _share(values: Sequence[bool]) -> float | None:
    return _mean(values) if values else None


def wilson(right: int, total: int) -> tuple[float, float]:
    """95 % interval of a share."""
    share, z2 = right / total, _Z * _Z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    reach = _Z / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def paired(better: Sequence[Record], worse: Sequence[Record]) -> tuple[float, float, float] | None:
    """Mean difference of accuracy on the questions both answered, with its 95 % interval (low, high)."""
    theirs = {record.question: record.right for record in worse}
    gaps = [record.right - theirs[record.question] for record in better if record.question in theirs]
    if not gaps:
        return None
    mean = _mean(gaps)
    spread = math.sqrt(math.fsum((gap - mean) ** 2 for gap in gaps) / max(len(gaps) - 1, 1) / len(gaps))
    return mean, mean - _Z * spread, mean + _Z * spread
