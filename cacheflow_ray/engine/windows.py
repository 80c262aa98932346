"""A stream's window rebuilt from stored blocks: the same to the bit as the one the encoder had."""

from __future__ import annotations

import torch
from torch import Tensor

from cacheflow_ray.engine.arrays import as_array
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.spec import StreamSpec
from cacheflow_ray.models import VideoModel, Window
from memory_store.records import Array


def new_window(model: VideoModel, spec: StreamSpec) -> Window:
    """An empty window of the stream's size and position rule."""
    return model.window(model.positions(spec.fps), num_blocks=spec.window_blocks, block_size=spec.block_size)


def load_window(backend: Backend, stream_id: str, spec: StreamSpec, num_blocks: int) -> Window:
    """The window the stream's block `num_blocks` attends to."""
    window = new_window(backend.model, spec)
    held = range(max(0, num_blocks - spec.window_blocks), num_blocks)
    if held:
        fill_window(window, held, *read_blocks(backend, stream_id, held))
    return window


def fill_window(window: Window, held: range, tokens: list[Array], kv: Tensor) -> None:
    """Load blocks `held` whose KV [L, 2, H, len(held) * B, D] lies end to end."""
    for place, block_idx in enumerate(held):
        columns = slice(place * window.block_size, (place + 1) * window.block_size)
        window.load(block_idx, tokens[place], kv[:, :, :, columns])


def read_blocks(backend: Backend, stream_id: str, blocks: range) -> tuple[list[Array], Tensor]:
    """Tokens of each block, and the un-rotated KV of all, [L, 2, H, len(blocks) * B, D] on the CPU."""
    model, encoder = backend.model, backend.model.encoder
    with backend.store.reader(stream_id, blocks, fingerprint=model.fingerprint) as reader:
        total = sum(len(tokens) for tokens in reader.tokens)
        kv = torch.empty((encoder.num_layers, 2, encoder.num_kv_heads, total, encoder.head_dim), dtype=model.dtype)
        array = as_array(kv)
        reader.read(range(encoder.num_layers), array[:, 0], array[:, 1])
        return list(reader.tokens), kv
