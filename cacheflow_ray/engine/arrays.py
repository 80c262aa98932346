"""torch on one side, numpy on the other: the same memory where both are on the CPU."""

from __future__ import annotations

import ml_dtypes
import torch
from torch import Tensor

from cacheflow_ray.errors import InvalidFeatures
from memory_store.records import Array


def as_array(tensor: Tensor) -> Array:
    """A numpy view of a CPU tensor; bfloat16, which numpy lacks, as ml_dtypes' type."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    array: Array = tensor.numpy()
    return array


def check_finite(kv: Tensor, stream_id: str, block_idx: int) -> None:
    """Refuse KV no answer may ever rest on.

    Raises:
        InvalidFeatures: NaN or infinity.
    """
    if not kv.isfinite().all():
        raise InvalidFeatures(
            f"the language model gave NaN or infinity for block {block_idx} of stream {stream_id!r}: check the model's "
            "weights, or use --dtype float32",
            stream=stream_id,
            block_idx=block_idx,
        )
