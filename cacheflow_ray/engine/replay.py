"""The token inputs of stored blocks made once more from the video: which tokens is read off their metadata.

    tokens [B] of each block -> runs, one per unit -> the units' frames -> vision tower -> rows kept -> inputs [B, C_in]

Nothing is decided anew. A unit's further frames (models that merge frames in time) are those between its first, whose
number every token tells, and the next unit's; a frame the pixel gate held back lies between them and is passed by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
import torch
from torch import Tensor

from cacheflow_ray.core.gate import gate_view, is_still
from cacheflow_ray.engine.stream import Unit
from cacheflow_ray.errors import MediaError
from cacheflow_ray.media import Frame
from cacheflow_ray.models import VideoModel
from cacheflow_ray.models.family import VISION_BATCH
from memory_store.records import Array

#: Frame numbers and times of one source are the same numbers each time it is read.
_SAME_S = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """Neighbouring tokens of one unit in one block.

    Args:
        tokens: [n] of TOKEN_DTYPE.
        skipped: tokens of the unit in blocks before; None: not known, for the block before is gone.
        is_last: the block ends with it, so that more of the unit may follow.
    """

    tokens: Array
    skipped: Array | None
    is_last: bool

    @property
    def seq(self) -> int:
        """Of the unit's first frame."""
        return int(self.tokens["frame_idx"][0])

    def text(self, before: Sequence[int], after: Sequence[int]) -> list[int]:
        """Token ids of its text tokens, in order.

        Args:
            before, after: all of the unit's, before and after its patches.

        Raises:
            MediaError: it cannot be told which of them they are.
        """
        is_text = self.tokens["row"] < 0
        patches, count = np.flatnonzero(~is_text), int(is_text.sum())
        if len(patches):
            lead = int(patches[0])
            return [*_some(before, len(before) - lead, lead), *_some(after, 0, count - lead)]
        if not self.is_last:
            return _some(after, len(after) - count, count)
        if self.skipped is None:
            raise MediaError("the block before is gone, and with it what the first text tokens are")
        patches = np.flatnonzero(self.skipped["row"] >= 0)
        if len(patches):
            return _some(after, len(self.skipped) - int(patches[-1]) - 1, count)
        return _some(before, len(self.skipped), count)


def _some(ids: Sequence[int], start: int, count: int) -> list[int]:
    """Raises: MediaError: there are not so many."""
    if start < 0 or start + count > len(ids):
        raise MediaError("the text of its frames is not what the model gives them now")
    return list(ids[start : start + count])


def runs_of(tokens: Array, skipped: Callable[[], Array | None]) -> list[Run]:
    """A block's tokens by unit.

    Args:
        tokens: [B] of TOKEN_DTYPE.
        skipped: tokens of the block's first unit in blocks before, asked for only where it matters.
    """
    cuts = [0, *(np.flatnonzero(np.diff(tokens["frame_idx"])) + 1).tolist(), len(tokens)]
    runs = []
    for start, stop in pairwise(cuts):
        own, is_last = tokens[start:stop], stop == len(tokens)
        open_ended = start == 0 and is_last and bool((own["row"] < 0).all())
        runs.append(Run(tokens=own, skipped=skipped() if open_ended else own[:0], is_last=is_last))
    return runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A unit to be seen again.

    Args:
        seq, timestamp_s: of its first frame.
        until: the next unit's first frame: this one's are before it.
    """

    seq: int
    timestamp_s: float
    until: int


def needs_of(tokens: Array, stop: int) -> list[Need]:
    """The units of tokens that follow each other.

    Args:
        tokens: [n] of TOKEN_DTYPE.
        stop: first frame of the unit behind them.
    """
    seqs, places = np.unique(tokens["frame_idx"], return_index=True)
    times = tokens["timestamp_s"][places]
    untils = [*seqs[1:].tolist(), stop]
    return [
        Need(seq=int(seq), timestamp_s=float(time_s), until=int(until))
        for seq, time_s, until in zip(seqs, times, untils, strict=True)
    ]


def seen_again(
    frames: Iterator[Frame], needs: Sequence[Need], model: VideoModel, gate: float | None
) -> Iterator[tuple[Unit, Tensor]]:
    """Each unit with its features [P, C_in], as they were.

    Args:
        frames: of the source, from the first unit's on.
        gate: threshold of the pixel gate, where the stream has one.

    Raises:
        MediaError: a frame is not there, or at another time.
    """
    units = _units(frames, needs, model.vision.frames_per_unit, gate)
    while batch := list(islice(units, VISION_BATCH)):
        yield from zip(
            batch, model.vision.encode([[frame.image for frame in unit.frames] for unit in batch]), strict=True
        )


def _units(frames: Iterator[Frame], needs: Sequence[Need], size: int, gate: float | None) -> Iterator[Unit]:
    ahead: Frame | None = None
    for need in needs:
        while ahead is None or ahead.seq < need.seq:
            ahead = next(frames, None)
            if ahead is None:
                raise MediaError(f"it ends before frame {need.seq} at {need.timestamp_s:.3f} s", seq=need.seq)
        if ahead.seq != need.seq or abs(ahead.timestamp_s - need.timestamp_s) > _SAME_S:
            raise MediaError(f"frame {need.seq} is not at {need.timestamp_s:.3f} s any more", seq=need.seq)
        merged = [ahead]
        while len(merged) < size and (ahead := next(frames, None)) is not None and ahead.seq < need.until:
            if ahead.image.shape != merged[0].image.shape:
                break
            if gate is None or not is_still(_view(ahead), _view(merged[-1]), gate):
                merged.append(ahead)
        yield Unit(frames=(*merged, *[merged[-1]] * (size - len(merged))))


def _view(frame: Frame) -> Tensor:
    return gate_view(torch.from_numpy(frame.image))


def inputs_of(run: Run, unit: Unit, features: Tensor, model: VideoModel) -> Tensor:
    """Token inputs [n, C_in] of a run.

    Raises:
        MediaError: a token lies outside its frame, or its text is not to be had.
    """
    rows, cols = model.vision.grid(*unit.frames[0].image.shape[:2])
    is_text = run.tokens["row"] < 0
    patches = run.tokens[~is_text]
    if len(patches) and (patches["row"].max() >= rows or patches["col"].max() >= cols):
        raise MediaError(f"frame {run.seq} has another size than it had", seq=run.seq)
    out = features.new_empty((len(run.tokens), features.shape[1]))
    kept = patches["row"].astype(np.int64) * cols + patches["col"]
    out[torch.from_numpy(~is_text)] = features[torch.from_numpy(kept).to(features.device)]
    if is_text.any():
        times = [frame.timestamp_s for frame in unit.frames]
        before, after = model.vision.frame_text((times[0] + times[-1]) / 2)
        out[torch.from_numpy(is_text)] = model.embed(run.text(before, after))
    return out
