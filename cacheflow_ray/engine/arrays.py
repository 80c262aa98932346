"""torch on one side, numpy on the other: the same memory where both are on the CPU."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from memory_store.records import Array


def as_array(tensor: Tensor) -> Array:
    """A numpy view of a CPU tensor; bfloat16, which numpy lacks, as ml_dtypes' type."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    array: Array = tensor.numpy()
    return array


def as_tensor(array: Array) -> Tensor:
    """The inverse of `as_array`."""
    if array.dtype == np.dtype(ml_dtypes.bfloat16):
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)
