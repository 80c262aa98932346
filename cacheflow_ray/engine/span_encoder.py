"""One span of blocks through the models again: source -> token inputs -> KV, each block under the span's window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cacheflow_ray.engine.arrays import check_finite
from cacheflow_ray.engine.opened import Backend, OpenedStream
from cacheflow_ray.engine.replay import Need, inputs_of, needs_of, runs_of, seen_again
from cacheflow_ray.engine.sources import SourceNote
from cacheflow_ray.engine.spans import Span
from cacheflow_ray.engine.stream import Unit
from cacheflow_ray.engine.windows import fill_window, new_window, read_blocks
from cacheflow_ray.errors import MediaError
from cacheflow_ray.media import Frame, picture_distance, thumbnail
from cacheflow_ray.models import Segment
from memory_store.errors import BlockNotFound
from memory_store.records import Array

#: Two builds of ffmpeg and libjpeg differ by less in a thumbnail; what differs by more is another picture.
_OTHER_PICTURE = 2.0

#: A block's number, its tokens [B], and its inputs [B, C_in]; None where its KV is kept.
Part = tuple[int, Array, Tensor | None]


class SpanEncoder:
    """Encodes spans of one stream anew.

    Args:
        note: of the stream's source.
        in_time: asked before every picture and block; False ends the work.

    Attributes:
        looks_other: frames differ a little from what they were: another build of the decoder.
    """

    def __init__(
        self, backend: Backend, opened: OpenedStream, note: SourceNote, in_time: Callable[[], bool] = lambda: True
    ) -> None:
        self._backend, self._opened, self._note, self._in_time = backend, opened, note, in_time
        self.looks_other = False

    def encode(self, span: Span) -> Iterator[tuple[int, Tensor]]:
        """Each block encoded, and its KV [L, 2, H, B, D] un-rotated, on the model's device.

        Raises:
            MediaError: the source cannot be read, is not what it was, or time is up. StoreError, InvalidFeatures.
        """
        model, name = self._backend.model, self._opened.stream_id
        window = new_window(model, self._opened.spec)
        for block_idx, tokens, inputs in self._parts(span):
            number = block_idx - span.first  # the span is a stream of its own to the window
            if inputs is None:
                kept = read_blocks(self._backend, name, range(block_idx, block_idx + 1))
                fill_window(window, range(number, number + 1), *kept)
                continue
            kv = model.encoder.encode([Segment(inputs=inputs, tokens=tokens, block_idx=number, window=window)])[0]
            check_finite(kv, name, block_idx)
            yield block_idx, kv

    def _parts(self, span: Span) -> Iterator[Part]:
        store, spec, name = self._backend.store, self._opened.spec, self._opened.stream_id
        tokens = dict(zip(span.blocks, store.read_tokens(name, span.blocks), strict=True))
        pictures = dict(zip(span.encode, store.read_thumbnails(name, span.encode), strict=True))
        needs = self._needs(span, tokens)
        first, access = needs[0], self._backend.again.access
        with self._note.open_at(
            first.seq, first.timestamp_s, fps=spec.fps, access=access, wanted=self._in_time
        ) as source:
            units = seen_again(source, needs, self._backend.model, spec.pixel_gate)
            try:
                yield from self._made(tokens, pictures, units)
            except MediaError as error:
                raise self._note.changed(str(error)) from error

    def _made(
        self, tokens: Mapping[int, Array], pictures: Mapping[int, bytes | None], units: Iterator[tuple[Unit, Tensor]]
    ) -> Iterator[Part]:
        seen: tuple[Unit, Tensor] | None = None
        for block_idx, own in tokens.items():
            if block_idx not in pictures:
                yield block_idx, own, None
                continue
            inputs: list[Tensor] = []
            runs = runs_of(own, partial(self._skipped, block_idx, int(own["frame_idx"][0])))
            shown = max(runs, key=lambda run: len(run.tokens))
            for run in runs:
                while seen is None or seen[0].frames[0].seq < run.seq:
                    seen = next(units, None)
                    if seen is None or not self._in_time():
                        raise MediaError("time is up")
                inputs.append(inputs_of(run, *seen, self._backend.model))
                if run is shown:
                    self._check_picture(seen[0].frames[0], pictures[block_idx])
            yield block_idx, own, torch.cat(inputs)

    def _check_picture(self, frame: Frame, kept: bytes | None) -> None:
        """A block's thumbnail is of the frame that gave it most tokens: it must look as it did. Raises: MediaError."""
        if kept is None:
            return
        distance = picture_distance(kept, thumbnail(frame.image))
        if distance >= _OTHER_PICTURE:
            raise MediaError(f"frame {frame.seq} at {frame.timestamp_s:.3f} s shows another picture", seq=frame.seq)
        self.looks_other |= distance > 0

    def _needs(self, span: Span, tokens: Mapping[int, Array]) -> list[Need]:
        """Units of the blocks to encode."""
        everything = np.concatenate([tokens[block_idx] for block_idx in range(span.encode[0], span.encode[-1] + 1)])
        wanted = set(np.concatenate([tokens[block_idx]["frame_idx"] for block_idx in span.encode]).tolist())
        stop = self._seq_behind(span.encode[-1], int(everything["frame_idx"][-1]))
        return [need for need in needs_of(everything, stop) if need.seq in wanted]

    def _seq_behind(self, block_idx: int, seq: int) -> int:
        """First frame of the unit behind the one that begins with frame `seq`, which `block_idx` ends with."""
        opened = self._opened
        if self._backend.model.vision.frames_per_unit == 1:
            return seq + 1
        for after in range(block_idx + 1, opened.num_blocks):
            try:
                seqs = self._backend.store.read_tokens(opened.stream_id, [after])[0]["frame_idx"]
            except BlockNotFound:  # deleted, and this one was pinned
                return opened.state.next_seq
            if seqs[-1] > seq:
                return int(seqs[seqs > seq][0])
        seqs = opened.state.tail.tokens["frame_idx"]
        return int(seqs[seqs > seq][0]) if len(seqs) and seqs[-1] > seq else opened.state.next_seq

    def _skipped(self, block_idx: int, seq: int) -> Array | None:
        """Tokens of a unit in the blocks before one; None: a block that may hold some was deleted."""
        found: list[Array] = []
        for before in reversed(range(block_idx)):
            try:
                tokens = self._backend.store.read_tokens(self._opened.stream_id, [before])[0]
            except BlockNotFound:
                return None
            found.append(tokens[tokens["frame_idx"] == seq])
            if len(found[-1]) < len(tokens):
                break
        return np.concatenate(found[::-1]) if found else np.empty(0, self._opened.state.tail.tokens.dtype)
