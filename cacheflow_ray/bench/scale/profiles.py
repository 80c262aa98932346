"""Costs of LLaVA-OneVision on a GPU by arithmetic: the models' sizes, and what of a GPU's speed is taken to be reached.

token FLOP     2 * (parameters of the layers) + 4 L C W B      every parameter once, attention to a full window
frame FLOP     0.6e12                                           the vision tower
seconds        FLOP / (peak * mfu);  bytes / (bandwidth * share of it)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cacheflow_ray.bench.scale.costs import Costs, QuestionCosts, library_bytes
from cacheflow_ray.bench.scale.dimensions import (
    CODECS,
    SPARE,
    SUMMARISED_LAYERS,
    TOKEN_BYTES,
    VECTOR_BYTES,
    VECTORS_PER_BLOCK,
    Model,
)

#: Of a JPEG thumbnail of 160 pixels, as stored with every block.
_THUMBNAIL_BYTES = 6e3
_QUESTION_TOKENS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """What a GPU is taken to do.

    Args:
        peak_flops: of dense 16-bit products; mfu: the share of it that encoding reaches.
        memory_bytes, memory_bytes_per_s: and the share of the latter that generating a token reaches.
        spare: share of memory kept free of weights and windows.
        disk_bytes_per_s: KV read for a question; bus_bytes_per_s: and brought to the GPU.
        scan_bytes_per_s: summaries searched, on the host.
        decode_s: one host core's time for a megapixel of a source frame, by codec.
        answer_s: of an answer through the service, beyond what computes it.
    """

    name: str
    peak_flops: float
    mfu: float
    memory_bytes: float
    memory_bytes_per_s: float
    memory_share: float
    spare: float
    disk_bytes_per_s: float
    bus_bytes_per_s: float
    scan_bytes_per_s: float
    answer_s: float
    decode_s: Mapping[str, float]


#: Share of an H100's peak that the 11.4 frames/s published for the predecessor (7B, nothing dropped) amount to: the
#: only figure there is that is not a guess, and a low one.
PUBLISHED_MFU = 0.05


def h100(decode_s: Mapping[str, float], mfu: float = PUBLISHED_MFU) -> Gpu:
    """An H100 SXM with 80 GB beside a host with PCIe 5 and one NVMe disk per GPU."""
    return Gpu(
        name="H100", peak_flops=989e12, mfu=mfu, memory_bytes=80e9, memory_bytes_per_s=3.35e12, memory_share=0.6,
        spare=SPARE, disk_bytes_per_s=6.9e9, bus_bytes_per_s=23e9, scan_bytes_per_s=10e9, answer_s=0.018,
        decode_s=decode_s,
    )  # fmt: skip


def derived(model: Model, gpu: Gpu) -> Costs:
    """Costs of a model on a GPU."""
    flops = gpu.peak_flops * gpu.mfu
    kv_token = 2 * model.numbers_per_token
    weights_s = 2 * model.parameters / (gpu.memory_bytes_per_s * gpu.memory_share)
    prompt_s = max(_QUESTION_TOKENS * model.token_flop / flops, weights_s)
    tail_s = model.block_tokens / 2 * model.token_flop / flops
    vectors = SUMMARISED_LAYERS * VECTORS_PER_BLOCK
    return Costs(
        name=f"{model.name} on {gpu.name}",
        processor="gpu",
        patches=model.block_tokens,
        block_tokens=model.block_tokens,
        window_blocks=model.window_blocks,
        frame_s=model.vision_flop / flops,
        megapixel_s=0.0,
        token_s=model.token_flop / flops,
        room_streams=max(1, model.room_streams(gpu.memory_bytes, gpu.spare)),
        decode_s=gpu.decode_s,
        kv_bytes=float(kv_token * model.block_tokens),
        block_bytes={codec: model.block_bytes(codec) + _THUMBNAIL_BYTES for codec in CODECS},
        summary_bytes=model.summary_bytes + TOKEN_BYTES * model.block_tokens + _THUMBNAIL_BYTES,
        vectors=vectors,
        flat_bytes=float(vectors * VECTOR_BYTES["flat"](model.vector_numbers)),
        library_bytes=library_bytes(vectors, model.vector_numbers),
        question=QuestionCosts(
            base_s=gpu.answer_s + prompt_s + tail_s,
            vector_s=4 * model.vector_numbers / gpu.scan_bytes_per_s,
            context_s=kv_token * (1 / gpu.disk_bytes_per_s + 1 / gpu.bus_bytes_per_s),
            token_s=weights_s,
            token_context_s=kv_token / (gpu.memory_bytes_per_s * gpu.memory_share),
        ),
        sources=_sources(gpu),
    )


def _sources(gpu: Gpu) -> dict[str, str]:
    reached = f"{gpu.peak_flops / 1e12:.0f} TFLOP/s dense 16-bit (data sheet) x {gpu.mfu:g} reached (assumed)"
    return {
        "frame_s": f"0.6 TFLOP of the vision tower (the design's performance model) at {reached}",
        "token_s": f"2 x parameters of the layers + attention to a full window of 76 blocks at {reached}",
        "mfu": f"{PUBLISHED_MFU:g} is what 11.4 frames/s, published for ReKV 7B with nothing dropped, amount to",
        "room_streams": f"{gpu.memory_bytes / 1e9:.0f} GB less {gpu.spare:.0%} and weights, over a window of 77 blocks",
        "decode_s": "measured on this machine's CPU",
        "block_bytes": f"KV of the model's dimensions, scales, tokens, summary; {_THUMBNAIL_BYTES:.0f} B of thumbnail",
        "library_bytes": "sq8: a byte a number and 11 a vector; rabitq: a bit a number and 19",
        "megapixel_s": "not counted",
        "question.base_s": f"{gpu.answer_s * 1e3:.0f} ms beyond the engine (bench service, 2 cores of an AMD EPYC), "
        f"{_QUESTION_TOKENS} tokens of prompt, half a block of tail",
        "question.vector_s": f"a flat scan at {gpu.scan_bytes_per_s / 1e9:.0f} GB/s (assumed)",
        "question.context_s": f"one NVMe at {gpu.disk_bytes_per_s / 1e9:g} GB/s, PCIe 5 at "
        f"{gpu.bus_bytes_per_s / 1e9:g} GB/s (the design's performance model: 690 MB in 100 and 30 ms)",
        "question.token_s": f"weights and context read at {gpu.memory_bytes_per_s / 1e12:g} TB/s (data sheet) x "
        f"{gpu.memory_share:g} reached (assumed)",
    }
