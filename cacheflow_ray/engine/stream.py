"""One stream on its way into memory: frames in order, features thinned and packed, blocks out, a state to resume from.

    take(frames) -> units ──vision──> absorb(unit, features) -> tail, full blocks
                                       segment() ──language model──> keep(kv) -> outbox
                                                                     commit() -> one transaction

The two model calls in the middle belong to `batch`, which makes them for many streams at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cacheflow_ray.core.dropping import drop
from cacheflow_ray.core.gate import gate_view, is_still
from cacheflow_ray.core.packing import PackedBlock, Tail, pack
from cacheflow_ray.core.summary import make_summary
from cacheflow_ray.engine.arrays import as_array, check_finite
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.spec import StreamSpec
from cacheflow_ray.engine.state import EncoderState
from cacheflow_ray.engine.tokens import unit_tokens
from cacheflow_ray.engine.windows import load_window
from cacheflow_ray.errors import InvalidFeatures
from cacheflow_ray.media import Frame, thumbnail
from cacheflow_ray.models import Segment
from memory_store.errors import EpochFenced
from memory_store.records import Block, Commit, StreamState


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unit:
    """What the vision tower sees at once: one frame, or the frames a model merges in time.

    Args:
        frames: all of one size.
        still: the pixel gate closed: nothing moved, the vision tower is spared.
    """

    frames: tuple[Frame, ...]
    still: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ready:
    """A full block waiting for the language model."""

    block_idx: int
    packed: PackedBlock
    thumbnail: bytes


class StreamEncoder:
    """State of one stream between the store and the two model calls; used by one thread.

    Args:
        backend: the model, shared by all streams, and the store a stream that goes on is read from.
        stream_id, spec: of the stream record.
        epoch: the caller's (`Store.claim`); None: whoever writes is the owner.

    Raises:
        EpochFenced: there is a newer owner.
    """

    def __init__(self, backend: Backend, stream_id: str, spec: StreamSpec, epoch: int | None = None) -> None:
        model = backend.model
        self.stream_id, self.spec, self._model = stream_id, spec, model
        stored = backend.store.load_state(stream_id)
        if epoch is not None and (stored is None or stored.epoch != epoch):
            raise EpochFenced(f"stream {stream_id!r} has another owner by now: open it anew", stream_id=stream_id)
        self._epoch = stored.epoch if stored else 0
        if stored is None or not stored.payload:
            tail = Tail.empty(model.token_width, model.dtype, model.device)
            self.state = EncoderState(tail=tail, frames_per_unit=model.vision.frames_per_unit)
            self.num_blocks = 0
        else:
            self.state = EncoderState.from_bytes(stored.payload, model.device)
            self.num_blocks = stored.num_blocks
        self._positions = model.positions(spec.fps)
        self.summary = make_summary(spec.summary, model.encoder.head_dim)
        self._window = load_window(backend, stream_id, spec, self.num_blocks)
        self._taken = deque[Unit]()  # units handed out and not yet absorbed
        self._cursor, self._pending = self.state.next_seq, self.state.pending
        known_s = self._pending[-1].timestamp_s if self._pending else self.state.last_timestamp_s
        self._newest_s = -math.inf if known_s is None else known_s
        self._ready, self._outbox = deque[_Ready](), list[Block]()
        self._best_image: np.ndarray | None = None  # of the open block's thumbnail, while it is not a JPEG yet

    def take(self, frames: Sequence[Frame], *, last: bool = False) -> list[Unit]:
        """Accept frames in order of seq; repeats and frames older than the last are counted and left out.

        Args:
            frames: any number.
            last: the source has ended: a frame still waiting for its partner goes alone.
        """
        units: list[Unit] = []
        for frame in frames:
            if frame.seq < self._cursor:
                self._count(duplicates=1)
            elif frame.timestamp_s < self._newest_s:
                self._count(out_of_order=1)
            else:
                self._cursor, self._newest_s = frame.seq + 1, frame.timestamp_s
                units += self._pair(frame)
        if last and self._pending:
            units.append(self._close_pair())
        self._taken.extend(units)
        return units

    def absorb(self, unit: Unit, features: Tensor | None) -> None:
        """Drop and pack one unit's tokens. Units come back in the order they were taken.

        Args:
            features: [P, C_in] of `Vision.encode`; None for a unit that was still.

        Raises:
            InvalidFeatures: NaN or infinity; the stream stays as it was before this unit.
        """
        first, last = unit.frames[0], unit.frames[-1]
        if features is None:
            rows, cols = self._model.vision.grid(*first.image.shape[:2])
            self._count(frames=len(unit.frames), tokens_seen=rows * cols)
        else:
            self._absorb_seen(unit, features)
        self._taken.popleft()
        self.state = replace(self.state, next_seq=last.seq + 1, last_timestamp_s=last.timestamp_s, pending=())

    def segment(self) -> Segment | None:
        """The oldest full block the language model has not seen; None when there is none."""
        if not self._ready:
            return None
        ready = self._ready[0]
        return Segment(
            inputs=ready.packed.inputs, tokens=ready.packed.tokens, block_idx=ready.block_idx, window=self._window
        )

    def keep(self, kv: Tensor, summary: np.ndarray) -> None:
        """Take the KV [L, 2, H, B, D] of the last `segment()` into the outbox.

        Args:
            summary: [S, V, H, D] float32, what `summary` makes of it.

        Raises:
            InvalidFeatures: NaN or infinity.
        """
        ready = self._ready.popleft()
        check_finite(kv, self.stream_id, ready.block_idx)
        self._outbox.append(
            Block(
                stream_id=self.stream_id,
                block_idx=ready.block_idx,
                tokens=ready.packed.tokens,
                kv=as_array(kv.cpu()),
                summary=summary,
                thumbnail=ready.thumbnail,
            )
        )

    @property
    def has_blocks(self) -> bool:
        """Whether encoded blocks wait to be committed."""
        return bool(self._outbox)

    def finish(self, warning: str | None = None, *, complete: bool = True) -> None:
        """Note how the source ended, and whether for good; everything taken has been absorbed and encoded."""
        self.state = replace(self.state, complete=complete, warning=warning)

    def commit(self) -> Commit:
        """Everything new since the last commit, and the state a resumed encoder starts from."""
        assert not self._ready, "full blocks are encoded before they are committed"
        if not self._taken:  # nothing between take and absorb: frames waiting for a partner are part of the state
            self.state = replace(self.state, next_seq=self._cursor, pending=self._pending)
        if self._best_image is not None:
            self.state = replace(self.state, thumbnail=thumbnail(self._best_image))
            self._best_image = None
        blocks, self._outbox = tuple(self._outbox), []
        payload = self.state.to_bytes()
        state = StreamState(epoch=self._epoch, num_blocks=self.num_blocks, payload=payload)
        return Commit(stream_id=self.stream_id, state=state, blocks=blocks)

    def _pair(self, frame: Frame) -> list[Unit]:
        if self.spec.pixel_gate is not None:
            view = gate_view(torch.from_numpy(frame.image))
            if is_still(view, self.state.gate_view, self.spec.pixel_gate):
                return [Unit(frames=(frame,), still=True)]
            self.state = replace(self.state, gate_view=view)
        units = []
        if self._pending and self._pending[0].image.shape != frame.image.shape:
            units.append(self._close_pair())
        self._pending = (*self._pending, frame)
        if len(self._pending) == self._model.vision.frames_per_unit:
            units.append(self._close_pair())
        return units

    def _close_pair(self) -> Unit:
        """The waiting frames as a unit, the last repeated where partners are missing (as the models' processors do)."""
        missing = self._model.vision.frames_per_unit - len(self._pending)
        unit = Unit(frames=(*self._pending, *[self._pending[-1]] * missing))
        self._pending = ()
        return unit

    def _absorb_seen(self, unit: Unit, features: Tensor) -> None:
        state, frame = self.state, unit.frames[0]
        grid = self._model.vision.grid(*frame.image.shape[:2])
        embeddings = features[:, : features.shape[1] // (1 + self._model.vision.num_deepstack)]
        reference = state.reference if grid == state.grid else None
        try:
            dropped = drop(embeddings[None], reference, self.spec.drop_rule)
        except InvalidFeatures as error:
            raise InvalidFeatures(
                f"the vision tower gave NaN or infinity for frame {frame.seq} ({frame.timestamp_s:.3f} s) of stream "
                f"{self.stream_id!r}: check the model's weights, or use --dtype float32",
                stream=self.stream_id,
                seq=frame.seq,
            ) from error
        kept = dropped.keep[0].nonzero()[:, 0]
        times = [part.timestamp_s for part in unit.frames]
        before, after = self._model.vision.frame_text((times[0] + times[-1]) / 2)
        parts = [features[kept]]
        if before or after:
            parts = [self._model.embed(before), *parts, self._model.embed(after)]
        tokens, next_pos = unit_tokens(
            frame, kept.cpu().numpy(), grid, (len(before), len(after)), self._positions, state.next_pos
        )
        self._pack(frame, torch.cat(parts), tokens)
        self.state = replace(self.state, next_pos=next_pos, reference=dropped.reference, grid=grid)
        distinct = len({part.seq for part in unit.frames})
        self._count(frames=distinct, units=1, tokens_seen=len(features), tokens_kept=len(kept))

    def _pack(self, frame: Frame, inputs: Tensor, tokens: np.ndarray) -> None:
        """Append to the tail; cut off full blocks, each with the thumbnail of the frame that gave it most tokens."""
        before = len(self.state.tail)
        packed, tail = pack(self.state.tail, inputs, tokens, self.spec.block_size)
        for number, block in enumerate(packed):
            share = self.spec.block_size - before if number == 0 else self.spec.block_size
            own = share > self.state.thumbnail_tokens or number > 0
            picture = thumbnail(frame.image) if own else self._thumbnail()
            self._ready.append(_Ready(block_idx=self.num_blocks, packed=block, thumbnail=picture))
            self.num_blocks += 1
            self._best_image = None
            self.state = replace(self.state, thumbnail=b"", thumbnail_tokens=0)
        share = len(tail) - (0 if packed else before)
        self.state = replace(self.state, tail=tail)
        if share > self.state.thumbnail_tokens:
            self._best_image = frame.image
            self.state = replace(self.state, thumbnail_tokens=share)

    def _thumbnail(self) -> bytes:
        return self.state.thumbnail if self._best_image is None else thumbnail(self._best_image)

    def _count(self, **more: int) -> None:
        counters = self.state.counters
        added = {name: getattr(counters, name) + count for name, count in more.items()}
        self.state = replace(self.state, counters=replace(counters, **added))
