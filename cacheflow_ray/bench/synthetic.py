"""Made-up input of real form: moving pictures in H.264, and memories of any length filled through the store's API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cacheflow_ray.config import StreamSettings
from cacheflow_ray.core.packing import Tail
from cacheflow_ray.core.summary import make_summary
from cacheflow_ray.engine.about import Counters
from cacheflow_ray.engine.arrays import as_array
from cacheflow_ray.engine.spec import StreamSpec
from cacheflow_ray.engine.state import EncoderState
from cacheflow_ray.media import write_video
from cacheflow_ray.media.write import Encoding
from cacheflow_ray.models import VideoModel
from cacheflow_ray.types import TOKEN_DTYPE
from memory_store import Store
from memory_store.records import Array, Block, Commit, StreamRecord, StreamState

#: Blocks per transaction while a memory is filled.
_BATCH = 16

#: Different KV blocks a filled memory repeats; summaries and tokens are each block's own.
_POOL = 8


def write_moving_video(path: Path, num_frames: int, *, height: int, width: int, fps: float) -> None:
    """A view that wanders over a textured wall while a box crosses it, in H.264, encoded fast rather than small."""
    encoding = Encoding(options={"preset": "ultrafast", "crf": "28"})
    write_video(path, moving_frames(num_frames, height=height, width=width), fps=fps, codec=encoding)


def moving_frames(num_frames: int, *, height: int, width: int) -> Iterator[npt.NDArray[np.uint8]]:
    """uint8 [height, width, 3], the same every time."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2 * height // 8 + 1, 2 * width // 8 + 1, 3), dtype=np.uint8)
    wall = np.repeat(np.repeat(coarse, 8, axis=0), 8, axis=1)
    for frame_idx in range(num_frames):
        top = int((0.5 + 0.5 * np.sin(frame_idx / 23)) * height)
        left = int((0.5 + 0.5 * np.sin(frame_idx / 37)) * width)
        frame = wall[top : top + height, left : left + width].copy()
        x = (frame_idx * 5) % (width - width // 6)
        frame[height // 3 : height // 2, x : x + width // 6] = (200, 30, frame_idx % 256)
        yield frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A stored memory to be made.

    Args:
        stream: its name.
        num_blocks: full blocks.
        tail_tokens: tokens of the open block.
        fps, keep: frames per second, and the share of their tokens that was kept.
        window_blocks: W.
    """

    stream: str
    num_blocks: int
    tail_tokens: int
    fps: float
    keep: float
    window_blocks: int


def block_bytes(model: VideoModel) -> int:
    """KV of one block."""
    encoder = model.encoder
    per_token = encoder.num_layers * 2 * encoder.num_kv_heads * encoder.head_dim * model.dtype.itemsize
    return per_token * model.default_block_size


def random_kv(model: VideoModel, generator: torch.Generator) -> torch.Tensor:
    """[L, 2, H, B, D] in the model's dtype, on the CPU."""
    encoder = model.encoder
    shape = (encoder.num_layers, 2, encoder.num_kv_heads, model.default_block_size, encoder.head_dim)
    return torch.randn(shape, generator=generator).to(model.dtype)


def fill(store: Store, model: VideoModel, memory: Memory, watch: Callable[[int], None] = lambda done: None) -> None:
    """Commit a stream of random KV, its state as an encoder leaves it at the end of a source.

    Args:
        watch: called with the number of blocks stored so far.
    """
    settings = StreamSettings(fps=memory.fps, window_blocks=memory.window_blocks)
    spec = StreamSpec.resolve(settings, model, "")
    store.create_stream(
        StreamRecord(stream_id=memory.stream, fingerprint=model.fingerprint, settings=spec.as_settings())
    )
    generator = torch.Generator().manual_seed(0)
    pool = [as_array(random_kv(model, generator)) for _ in range(_POOL)]
    encoder = model.encoder
    vectors = make_summary(spec.summary, encoder.head_dim).vectors_per_block
    shape = (len(model.summary_layers), vectors, encoder.num_kv_heads, encoder.head_dim)
    size = model.default_block_size
    for start in range(0, memory.num_blocks, _BATCH):
        numbers = range(start, min(start + _BATCH, memory.num_blocks))
        blocks = tuple(
            Block(
                stream_id=memory.stream,
                block_idx=number,
                tokens=_tokens(model, memory, number * size, size),
                kv=pool[number % _POOL],
                summary=torch.randn(shape, generator=generator).numpy(),
            )
            for number in numbers
        )
        state = StreamState(epoch=0, num_blocks=numbers.stop, payload=_state(model, memory, numbers.stop).to_bytes())
        store.commit([Commit(stream_id=memory.stream, state=state, blocks=blocks)])
        watch(numbers.stop)


def _tokens(model: VideoModel, memory: Memory, first: int, count: int) -> Array:
    """Metadata of tokens `first` .. of the stream, as dropping would have left them."""
    place = np.arange(first, first + count)
    patches = model.default_block_size
    frame_idx = (place / (patches * memory.keep)).astype(np.int64)
    tokens = np.zeros(count, TOKEN_DTYPE)
    tokens["frame_idx"], tokens["timestamp_s"], tokens["pos"] = frame_idx, frame_idx / memory.fps, place
    tokens["row"], tokens["col"] = np.divmod(place % patches, model.vision.grid(0, 0)[1])
    return tokens


def _state(model: VideoModel, memory: Memory, num_blocks: int) -> EncoderState:
    first = num_blocks * model.default_block_size
    tokens = _tokens(model, memory, first, memory.tail_tokens)
    inputs = torch.randn((memory.tail_tokens, model.token_width), generator=torch.Generator().manual_seed(1))
    frames = int(tokens["frame_idx"][-1]) + 1
    return EncoderState(
        tail=Tail(inputs=inputs.to(model.device, model.dtype), tokens=tokens),
        next_seq=frames,
        next_pos=first + memory.tail_tokens,
        last_timestamp_s=float(tokens["timestamp_s"][-1]),
        grid=model.vision.grid(0, 0),
        counters=Counters(
            frames=frames,
            units=frames,
            tokens_seen=frames * model.default_block_size,
            tokens_kept=first + memory.tail_tokens,
        ),
        complete=True,
    )
