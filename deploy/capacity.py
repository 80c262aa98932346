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

from cacheflow_ray.bench.scale.dimensions import (
    CODECS,
    MODELS,
    SUMMARISED_LAYERS,
    VECTOR_BYTES,
    VECTORS_PER_BLOCK,
)

INDEXES = {
    "in its stream (flat)": VECTOR_BYTES["flat"],
    "in the library (sq8)": VECTOR_BYTES["sq8"],
    "in the library (rabitq)": VECTOR_BYTES["rabitq"],
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
