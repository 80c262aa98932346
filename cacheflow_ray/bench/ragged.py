"""Eight streams in one call of the language model against eight calls."""

from __future__ import annotations

from cacheflow_ray.bench.bench import Bench
from cacheflow_ray.bench.measure import count_flops, interleaved, medians
from cacheflow_ray.bench.results import Part, Roofline
from cacheflow_ray.bench.windows import Lane

NUM_STREAMS = 8

#: W of the streams, all full: each token attends to this many blocks and its own.
WINDOW_BLOCKS = 4


def measure_ragged(bench: Bench) -> Part:
    """`ragged8_over_sequential`: tokens encoded per second, one block of each stream, in one call / in eight."""
    bench.note(f"encoding {NUM_STREAMS} streams in one call and one by one")
    model = bench.model
    lanes = [Lane(model, window_blocks=WINDOW_BLOCKS, seed=seed) for seed in range(NUM_STREAMS)]

    def together() -> None:
        model.encoder.encode([lane.segment() for lane in lanes])

    def one_by_one() -> None:
        for lane in lanes:
            model.encoder.encode([lane.segment()])

    flops, _ = count_flops(together)
    runs = {"together": together, "one_by_one": one_by_one}
    seconds = medians(interleaved(runs, bench.sizes.ragged_repeats, bench.device))
    tokens = NUM_STREAMS * model.default_block_size
    return Part(
        ratios={"ragged8_over_sequential": seconds["one_by_one"] / seconds["together"]},
        rooflines={
            "ragged8_over_sequential": Roofline(
                what=f"{tokens} tokens of {NUM_STREAMS} streams through the language model",
                num_bytes=0.0,
                num_flops=flops,
                seconds=seconds["together"],
            )
        },
        details={
            "tokens_per_s_together": tokens / seconds["together"],
            "tokens_per_s_one_by_one": tokens / seconds["one_by_one"],
            "window_blocks": WINDOW_BLOCKS,
        },
    )
