"""Evidence and moments as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cacheflow_ray.cli.output import Output, clock

if TYPE_CHECKING:
    from cacheflow_ray.engine import Evidence, StreamMoment

_HEADINGS = {"from": "right", "to": "right", "evidence": "left", "score": "right", "blocks": "left"}


def evidence_table(evidence: Sequence[Evidence], output: Output) -> None:
    output.table(_HEADINGS, [_cells(item) for item in evidence])


def moment_table(moments: Sequence[StreamMoment], output: Output, *, named: bool) -> None:
    """What a search found; `named`: with the streams' names."""
    if not moments:
        output.say("nothing found")
    elif named:
        rows = [(moment.stream, *_cells(moment.evidence)) for moment in moments]
        output.table({"stream": "left", **_HEADINGS}, rows)
    else:
        evidence_table([moment.evidence for moment in moments], output)


def block_list(block_idxs: Sequence[int]) -> str:
    """'3' or '3-7': the blocks of one piece of evidence are neighbours."""
    first, last = block_idxs[0], block_idxs[-1]
    return str(first) if first == last else f"{first}-{last}"


def _cells(item: Evidence) -> tuple[str, ...]:
    return (
        clock(item.start_s, tenths=True),
        clock(item.end_s, tenths=True),
        item.kind,
        "-" if item.score is None else f"{item.score:.3f}",
        block_list(item.block_idxs),
    )
