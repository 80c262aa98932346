"""Sizes of LLaVA-OneVision and of what is kept of it: the arithmetic under `bench scale` and deploy/capacity.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

#: Bytes of a kept token's metadata (frame, time, position, row, column).
TOKEN_BYTES = 28
#: Layers whose keys are summarised, and vectors each has for a block of 16 tokens or more.
SUMMARISED_LAYERS, VECTORS_PER_BLOCK = 2, 16
#: Kept of a GPU's memory for what is neither weights nor windows.
SPARE = 0.1
#: Bytes of one number of KV on disk; with a scale of float32 for each channel of a block where it is 1.
CODECS: Final[Mapping[str, int]] = {"native": 2, "int8": 1, "fp8": 1}
#: RAM of one summary vector of n numbers: searched in its stream (flat), and in the library's sealed segments.
VECTOR_BYTES: Final[Mapping[str, Callable[[int], int]]] = {
    "flat": lambda n: 4 * n,
    "sq8": lambda n: n + 11,
    "rabitq": lambda n: n // 8 + 19,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Dimensions of a model: L, H, D, B, W as everywhere; `width` of its hidden state.

    Args:
        parameters: of all of it. layer_parameters: of the language model's layers. vision_flop: of one frame.
    """

    name: str
    layers: int
    kv_heads: int
    head_dim: int
    width: int
    parameters: float
    layer_parameters: float
    vision_flop: float = 0.6e12
    block_tokens: int = 196
    window_blocks: int = 76

    @property
    def numbers_per_token(self) -> int:
        """Of keys and values in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def vector_numbers(self) -> int:
        """Of one summary vector."""
        return self.kv_heads * self.head_dim

    @property
    def summary_bytes(self) -> int:
        """Of one block's vectors on disk."""
        return 4 * SUMMARISED_LAYERS * VECTORS_PER_BLOCK * self.vector_numbers

    @property
    def window_bytes(self) -> int:
        """Of one open stream on its encoder's GPU: the window and the block that is being encoded, in 16 bits."""
        return 2 * self.numbers_per_token * self.block_tokens * (self.window_blocks + 1)

    @property
    def token_flop(self) -> float:
        """Of one kept token: every parameter of the layers once, and attention to a full window."""
        attended = self.block_tokens * self.window_blocks
        return 2 * self.layer_parameters + 4 * self.layers * self.width * attended

    def frame_flop(self, keep: float) -> float:
        return self.vision_flop + keep * self.block_tokens * self.token_flop

    def blocks_per_hour(self, fps: float, keep: float) -> float:
        """A frame has as many tokens as a block."""
        return 3600 * fps * keep

    def streams_per_gpu(self, fps: float, keep: float, tflops: float, memory_gb: float) -> tuple[float, int]:
        """As many as one GPU can encode, and as many as have room for their windows beside the weights."""
        return tflops * 1e12 / (fps * self.frame_flop(keep)), self.room_streams(memory_gb * 1e9)

    def room_streams(self, memory_bytes: float, spare: float = SPARE) -> int:
        """Streams whose windows have room on one GPU beside the weights. `spare`: share of it kept for all else."""
        return max(0, int((memory_bytes * (1 - spare) - 2 * self.parameters) // self.window_bytes))

    def block_bytes(self, codec: str) -> int:
        """Of one block on disk: KV, scales, token metadata, summary vectors. Thumbnails come on top."""
        scales = 0 if CODECS[codec] == 2 else 4 * self.numbers_per_token
        kv = CODECS[codec] * self.numbers_per_token * self.block_tokens
        return kv + scales + TOKEN_BYTES * self.block_tokens + self.summary_bytes


MODELS: Final[Mapping[str, Model]] = {
    "llava-ov-0.5b": Model(
        name="llava-ov-0.5b", layers=24, kv_heads=2, head_dim=64, width=896, parameters=0.894e9,
        layer_parameters=0.358e9,
    ),
    "llava-ov-7b": Model(
        name="llava-ov-7b", layers=28, kv_heads=4, head_dim=128, width=3584, parameters=8.03e9,
        layer_parameters=6.53e9,
    ),
}  # fmt: skip
