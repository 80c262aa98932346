"""Rotary angles of a loaded model, in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from cacheflow_ray.errors import UnsupportedModel

#: Rules whose frequencies change with the length of the input: keys rotated once would be wrong later.
LENGTH_DEPENDENT = ("dynamic", "longrope")

#: Rules whose frequencies are constants of the model.
CONSTANT = ("default", "linear", "llama3", "yarn")


class Rotary:
    """cos and sin of a text model's rotary embedding at any positions, M-RoPE included.

    Args:
        module: the text model's `rotary_emb`.
        device: where the angles are wanted.

    Raises:
        UnsupportedModel: the model's frequencies depend on the length of the input, or on a rule not known here.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        config: Any = module.config
        rope_type = str(module.rope_type)
        if rope_type not in CONSTANT:
            reason = "changes with the length of the input" if rope_type in LENGTH_DEPENDENT else "is not known here"
            raise UnsupportedModel(
                f"rotary embedding of type {rope_type!r} {reason}, so keys cannot be rotated once; use a model (or a "
                f"rope setting in its config.json) of type {', '.join(CONSTANT)}",
                rope_type=rope_type,
            )
        # The module's own buffer may have been cast down with the weights: compute the frequencies afresh.
        init: Any = module.compute_default_rope_parameters if rope_type == "default" else ROPE_INIT_FUNCTIONS[rope_type]
        with torch.device("cpu"):
            frequencies, scaling = init(config)
        self._frequencies = frequencies.to(device, torch.float64)
        self._scaling = float(scaling)
        self._recompose: Any = getattr(module, "recomposition_frequencies", None)

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions int64 [A, T] -> cos, sin float32 [T, R/2], scaled as the model scales them."""
        angles = positions.to(self._frequencies.device, torch.float64)[..., None] * self._frequencies
        return self._table(angles.cos()), self._table(angles.sin())

    def _table(self, table: Tensor) -> Tensor:
        if self._recompose is None:
            half = table[0]
        else:  # M-RoPE: channels take the time, height or width axis, as the module's own layout says
            axes = table if len(table) == 3 else table.expand(3, -1, -1).clone()
            half = self._recompose(axes[:, None])[0, :, : self._frequencies.numel()]
        return (half * self._scaling).float()
