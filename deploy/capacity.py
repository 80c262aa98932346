"""How many GPUs, how much disk and how much memory so many streams need: the arithmetic of docs/runbook.md.

python deploy/capacity.py tables
python deploy/capacity.py plan --model llava-ov-7b --streams 100 --keep 0.2 --days 7

Sizes follow from the models' dimensions; what depends on a machine (sustained TFLOP/s, memory) is an option. Bytes are
decimal: a GB is 10^9.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Bytes of a kept token's metadata (frame, time, position, row, column).
TOKEN_BYTES = 28
#: Layers whose keys are summarised, and vectors each has for a block of 16 tokens or more.
SUMMARISED_LAYERS, VECTORS_PER_BLOCK = 2, 16
#: Bytes of one number of KV on disk; with a scale of float32 for each channel of a block where it is 1.
CODECS = {"native": 2, "int8": 1, "fp8": 1}
#: RAM of one summary vector of n numbers: searched in its stream, and in the library's sealed segments.
INDEXES = {
    "in its stream (flat)": lambda n: 4 * n,
    "in the library (sq8)": lambda n: n + 11,
    "in the library (rabitq)": lambda n: n // 8 + 19,
}
#: Kept of a GPU's memory for what is neither weights nor windows.
SPARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Dimensions of a model: L, H, D, B, W as everywhere; `width` of its hidden state.

    Args:
        parameters: of all of it. layer_parameters: of the language model's layers. vision_flop: of one frame.
    """

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
    def window_bytes(self) -> int:
        """Of one open stream on its encoder's GPU: the window and the block that is being encoded, in 16 bits."""
        return 2 * self.numbers_per_token * self.block_tokens * (self.window_blocks + 1)

    @property
    def token_flop(self) -> float:
        """Of one kept token: every parameter of the layers once, and attention to a full window."""
        attended = self.block_tokens * self.window_blocks
        return 2 * self.layer_parameters + 4 * self.layers * self.width * attended

    def block_bytes(self, codec: str) -> int:
        """Of one block on disk: KV, scales, token metadata, summary vectors. Thumbnails come on top."""
        scales = 0 if CODECS[codec] == 2 else 4 * self.numbers_per_token
        summary = 4 * SUMMARISED_LAYERS * VECTORS_PER_BLOCK * self.vector_numbers
        kv = CODECS[codec] * self.numbers_per_token * self.block_tokens
        return kv + scales + TOKEN_BYTES * self.block_tokens + summary

    def blocks_per_hour(self, fps: float, keep: float) -> float:
        """A frame has as many tokens as a block."""
        return 3600 * fps * keep

    def frame_flop(self, keep: float) -> float:
        return self.vision_flop + keep * self.block_tokens * self.token_flop

    def streams_per_gpu(self, fps: float, keep: float, tflops: float, memory_gb: float) -> tuple[float, int]:
        """As many as one GPU can encode, and as many as have room for their windows beside the weights."""
        computed = tflops * 1e12 / (fps * self.frame_flop(keep))
        room = memory_gb * 1e9 * (1 - SPARE) - 2 * self.parameters
        return computed, max(0, int(room // self.window_bytes))


MODELS = {
    "llava-ov-0.5b": Model(layers=24, kv_heads=2, head_dim=64, width=896, parameters=0.894e9, layer_parameters=0.358e9),
    "llava-ov-7b": Model(layers=28, kv_heads=4, head_dim=128, width=3584, parameters=8.03e9, layer_parameters=6.53e9),
}


def disk_table() -> list[str]:
    """GB an hour of a stream at one frame a second."""
    keeps = (1.0, 0.5, 0.2, 0.1)
    lines = [f"{'disk, GB an hour':24}" + "".join(f"{f'keep {keep:.0%}':>12}" for keep in keeps)]
    for name, model in MODELS.items():
        for codec in ("native", "int8"):
            hours = [model.blocks_per_hour(1.0, keep) * model.block_bytes(codec) / 1e9 for keep in keeps]
            lines.append(f"{f'{name} {codec}':24}" + "".join(f"{hour:12.2f}" for hour in hours))
    return lines


def gpu_table(tflops: float, memory_gb: float) -> list[str]:
    """Streams of one frame a second that one GPU takes; the smaller number counts."""
    lines = [f"{f'streams a GPU of {memory_gb:.0f} GB':30}{'computed':>12}{'have room':>12}"]
    for name, model in MODELS.items():
        for keep in (1.0, 0.5, 0.2, 0.1):
            computed, room = model.streams_per_gpu(1.0, keep, tflops, memory_gb)
            lines.append(f"{f'{name}, keep {keep:.0%}':30}{computed:12.1f}{room:12d}")
    return lines


def memory_table() -> list[str]:
    """GB of RAM for a million summary vectors."""
    lines = [f"{'RAM, GB a million vectors':28}" + "".join(f"{name:>16}" for name in MODELS)]
    for index, size in INDEXES.items():
        lines.append(f"{index:28}" + "".join(f"{size(own.vector_numbers) / 1e3:16.3f}" for own in MODELS.values()))
    return lines


def plan(options: argparse.Namespace) -> list[str]:
    """What the streams need in all."""
    model, streams = MODELS[options.model], options.streams
    computed, room = model.streams_per_gpu(options.fps, options.keep, options.tflops, options.memory_gb)
    blocks = model.blocks_per_hour(options.fps, options.keep) * streams
    kept = blocks * 24 * options.days
    vectors = kept * SUMMARISED_LAYERS * VECTORS_PER_BLOCK
    flat, sq8 = list(INDEXES.values())[:2]
    asked_of = 2 * options.top_k * model.numbers_per_token * model.block_tokens
    per_gpu = min(computed, room)
    lines = {
        "encoder GPUs": f"{math.ceil(streams / per_gpu) if per_gpu else 'none is large enough'}",
        "streams a GPU": f"{computed:.1f} computed, {room} have room",
        "blocks an hour": f"{blocks:,.0f}",
        "written": f"{blocks * model.block_bytes(options.codec) / 3.6e9:,.0f} MB/s",
        "disk": f"{kept * model.block_bytes(options.codec) / 1e12:.2f} TB for {options.days:g} days, {options.codec}",
        "summary vectors": f"{vectors / 1e6:,.1f} million",
        "RAM, library": f"{vectors * sq8(model.vector_numbers) / 1e9:,.1f} GB (sq8)",
        "RAM, one stream asked": f"{vectors / streams * flat(model.vector_numbers) / 1e9:.2f} GB (flat)",
        "read a question": f"{asked_of / 1e6:,.0f} MB for {options.top_k} blocks",
    }
    return [f"{name:24}{value}" for name, value in lines.items()]


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="GPUs, disk and memory for so many streams.")
    commands = parser.add_subparsers(dest="command", required=True)
    tables, planned = commands.add_parser("tables"), commands.add_parser("plan")
    for one in (tables, planned):
        one.add_argument("--tflops", type=float, default=50.0, help="sustained by one GPU (default: %(default)s)")
        one.add_argument("--memory-gb", type=float, default=80.0, help="of one GPU (default: %(default)s)")
    planned.add_argument("--model", choices=MODELS, default="llava-ov-7b")
    planned.add_argument("--streams", type=int, default=100)
    planned.add_argument("--fps", type=float, default=1.0, help="frames a second of each (default: %(default)s)")
    planned.add_argument("--keep", type=float, default=0.2, help="share of tokens kept (default: %(default)s)")
    planned.add_argument("--codec", choices=CODECS, default="native")
    planned.add_argument("--days", type=float, default=7.0, help="that KV is kept (default: %(default)s)")
    planned.add_argument("--top-k", type=int, default=8, help="blocks a question retrieves (default: %(default)s)")
    options = parser.parse_args(args)
    if options.command == "plan":
        print("\n".join(plan(options)))
        return
    parts = (disk_table(), gpu_table(options.tflops, options.memory_gb), memory_table())
    print("\n\n".join("\n".join(lines) for lines in parts))


if __name__ == "__main__":
    main()
