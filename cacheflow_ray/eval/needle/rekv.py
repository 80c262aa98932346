"""ReKV as published (Di et al., ICLR 2025, arXiv 2503.00540, internal retrieval), to compare with.

Every layer retrieves for itself: the mean of the question's queries at that layer, computed over what the layers below
have retrieved, is compared by raw dot product with the mean key of each block. A block is one frame, nothing is
dropped, and no local window is attended to at answer time. Deviation: keys are summarised before rotation and rotated
to contiguous positions, as everywhere here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cacheflow_ray.engine.arrays import as_array
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.eval.needle.streams import Remembered, stored_keys
from cacheflow_ray.models import Suffix
from cacheflow_ray.models.context import Context


class MeanKeys:
    """Mean key of every block at every layer, read once per stream: [N, L, H, D]."""

    def __init__(self, backend: Backend, stream: Remembered) -> None:
        layers = range(backend.model.encoder.num_layers)
        parts = [stored_keys(backend, stream, [layer]).mean(dim=3)[:, 0] for layer in layers]
        self.vectors = torch.stack(parts, dim=1)


def layered_blocks(
    backend: Backend, stream: Remembered, suffix: Suffix, top_k: int, means: MeanKeys
) -> list[list[int]]:
    """The blocks each layer retrieves, in temporal order."""
    model, chosen = backend.model, list[list[int]]()
    asked = torch.tensor(suffix.question)

    def fill(layer: int, queries: Tensor, context: Context) -> None:
        mean = queries[:, asked].float().mean(dim=1)  # [Hq, D]
        grouped = mean.unflatten(0, (model.encoder.num_kv_heads, -1)).sum(dim=1)  # [H, D]
        dots = torch.einsum("nhd,hd->n", means.vectors[:, layer], grouped)
        best = torch.sort(dots, descending=True, stable=True).indices[:top_k]
        chosen.append(sorted(best.tolist()))
        _copy_layer(backend, stream, chosen[-1], layer, context)

    context = _empty(backend, stream, top_k, len(suffix.ids) + model.num_after_video)
    model.layer_by_layer(context, suffix, min(top_k, stream.num_blocks) * stream.block_size, fill)
    return chosen


def layered_context(backend: Backend, stream: Remembered, chosen: list[list[int]], room: int) -> Context:
    """A context in which every layer holds its own blocks."""
    context = _empty(backend, stream, len(chosen[0]), room)
    for layer, blocks in enumerate(chosen):
        _copy_layer(backend, stream, blocks, layer, context)
    start, count = context.length, len(chosen[0]) * stream.block_size
    context.turn(torch.arange(start, start + count)[None])
    return context


def _empty(backend: Backend, stream: Remembered, num_blocks: int, room: int) -> Context:
    model = backend.model
    return model.context(model.prefix.length + min(num_blocks, stream.num_blocks) * stream.block_size + room)


def _copy_layer(backend: Backend, stream: Remembered, blocks: list[int], layer: int, context: Context) -> None:
    start = backend.model.prefix.length
    columns = slice(start, start + len(blocks) * stream.block_size)
    name, fingerprint = stream.opened.stream_id, backend.model.fingerprint
    with backend.store.reader(name, blocks, fingerprint=fingerprint) as reader:
        at = slice(layer, layer + 1)
        reader.read(
            range(layer, layer + 1), as_array(context.keys[at, :, columns]), as_array(context.values[at, :, columns])
        )
