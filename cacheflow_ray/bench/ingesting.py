"""How much of an ingest is not the model, and how many frames per second go in as more is dropped."""

from __future__ import annotations

import shutil

import torch

from cacheflow_ray.bench.bench import Bench
from cacheflow_ray.bench.measure import count_flops, interleaved, settle
from cacheflow_ray.bench.results import Part, Roofline
from cacheflow_ray.bench.synthetic import block_bytes
from cacheflow_ray.bench.windows import Lane
from cacheflow_ray.config import StreamSettings
from cacheflow_ray.engine import IngestReport, VideoMemory
from cacheflow_ray.models.family import VISION_BATCH
from cacheflow_ray.models.pixels import Normalise, to_pixels
from memory_store.records import JsonValue

#: Share of tokens dropped in the ingest whose non-model share is measured (the paper's rates are about this).
TYPICAL_DROP = 0.8

DROPS = (0.0, 0.5, 0.8, 0.9)


def measure_ingest(bench: Bench) -> Part:
    """`non_model_share`: wall-clock of a real ingest that is in neither of the two model forwards.

    The engine's `vision` stage holds the resizing and normalising of frames too. They are no forward, so they are timed
    apart, on the same frames, and counted as non-model work.
    """
    num_frames = bench.sizes.ingest_frames
    tau = bench.tau(TYPICAL_DROP, num_frames)
    bench.note(f"ingesting {num_frames} frames")
    report = _ingest(bench, tau, num_frames)
    pixels_s = min(_pixel_seconds(bench) * report.frames, report.stages_s["vision"])
    model_s = report.stages_s["vision"] - pixels_s + report.stages_s.get("language_model", 0.0)
    block_flops = _block_flops(bench)
    batches = bench.num_vision_batches(report.frames, VISION_BATCH)
    roofline = Roofline(
        what=f"{batches} vision batches, {report.blocks} blocks through the language model, their KV written",
        num_bytes=report.blocks * block_bytes(bench.model),
        num_flops=batches * bench.vision_flops() + report.blocks * block_flops,
        seconds=report.elapsed_s,
    )
    details: dict[str, JsonValue] = _told(report) | {
        "pixels_s": pixels_s,
        "non_model_share_pixels_in_vision": 1 - (model_s + pixels_s) / report.elapsed_s,
        "stages_s": dict(report.stages_s),
    }
    return Part(
        ratios={"non_model_share": 1 - model_s / report.elapsed_s},
        rooflines={"non_model_share": roofline},
        details=details,
    )


def measure_encoding(bench: Bench) -> Part:
    """Frames per second of whole ingests at several drop rates; `drop` is what was really dropped."""
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    num_frames = bench.sizes.encode_frames
    rows: list[JsonValue] = []
    for drop in DROPS:
        bench.note(f"ingesting {num_frames} frames at {100 * drop:.0f} % drop")
        report = _ingest(bench, bench.tau(drop, num_frames), num_frames)
        rows.append({"wanted_drop": drop, "frames_per_s": report.frames / report.elapsed_s} | _told(report))
    details: dict[str, JsonValue] = {"rows": rows}
    if bench.device.type == "cuda":
        details["peak_gpu_memory_gb"] = torch.cuda.max_memory_allocated(bench.device) / 1e9
    return Part(details=details)


def _ingest(bench: Bench, tau: float, num_frames: int) -> IngestReport:
    """One frame per second of the video, up to that many, into a store of its own."""
    folder = bench.subfolder("ingest")
    video = bench.video(num_frames)
    try:
        with VideoMemory.open(folder, model=bench.model) as memory:
            settle(bench.device)
            return memory.ingest(video, stream="moving", settings=StreamSettings(fps=1.0, tau=tau))
    finally:
        shutil.rmtree(folder)


def _pixel_seconds(bench: Bench) -> float:
    """Resizing and normalising one frame."""
    side, device = bench.sizes.pixel_side, bench.device
    images = [frame.image for frame in bench.first_frames()]
    times = interleaved({"pixels": lambda: to_pixels(images, side, side, Normalise(), device)}, 15, device)["pixels"]
    return min(times) / len(images)


def _block_flops(bench: Bench) -> float:
    """Operations of one block at the start of a stream."""
    lane = Lane(bench.model, window_blocks=0, seed=0)
    return count_flops(lambda: bench.model.encoder.encode([lane.segment()]))[0]


def _told(report: IngestReport) -> dict[str, JsonValue]:
    return {
        "frames": report.frames,
        "blocks": report.blocks,
        "drop": 1 - report.keep_rate,
        "seconds": report.elapsed_s,
    }
