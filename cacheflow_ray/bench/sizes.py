"""What each preset measures, and how much of it: real dimensions are slow on a CPU, and disks end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from cacheflow_ray.errors import UsageError

#: Seconds of stored memory the two questions are asked of.
SHORT_S, LONG_S = 600.0, 36_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """One preset's amounts.

    Args:
        model: name it is loaded by.
        pixel_side: images are resized to this, pixels.
        ingest_frames: sampled frames of the ingest whose non-model share is measured.
        encode_frames: sampled frames per drop rate of the encoding speed.
        fps: sampled frames per second of the two stored memories.
        keep: share of their tokens that is kept; with `fps` it decides how many blocks an hour is.
        top_k, window_blocks: K and W of the question asked of both; the short one holds K + W blocks or more.
        question_repeats, ragged_repeats, fetch_repeats: rounds a median is taken of.
        on_request: parts that run only when they are asked for, and why.
    """

    model: str
    pixel_side: int
    ingest_frames: int
    encode_frames: int
    fps: float = 1.0
    keep: float = 0.132
    top_k: int = 64
    window_blocks: int = 8
    question_repeats: int = 5
    ragged_repeats: int = 3
    fetch_repeats: int = 21
    on_request: Mapping[str, str] = field(default_factory=dict)

    def num_blocks(self, seconds: float) -> int:
        """Full blocks that so much stream leaves (a block has as many tokens as a frame)."""
        return int(seconds * self.fps * self.keep)


#: Minutes for numbers that mean little: 32 frames through the real vision tower, several seconds each.
_SLOW_ON_CPU = {"encode": "takes minutes at these dimensions on a CPU: ask for it with --only encode"}


def _tiny(on_accelerator: bool) -> Sizes:
    return Sizes(
        model="random:tiny-llava-onevision",
        pixel_side=112,
        ingest_frames=320,
        encode_frames=160,
        question_repeats=15,
        ragged_repeats=25,
    )


def _half_billion(on_accelerator: bool) -> Sizes:
    """1 frame per second and the 86.8 % the paper drops on RVS-Ego: 79 blocks (0.2 GB) and 4752 (11 GB)."""
    sizes = Sizes(model="random:llava-ov-0.5b", pixel_side=384, ingest_frames=256, encode_frames=256)
    on_cpu = replace(sizes, ingest_frames=16, encode_frames=8, on_request=_SLOW_ON_CPU)
    return sizes if on_accelerator else on_cpu


def _seven_billion(on_accelerator: bool) -> Sizes:
    """A block is 10.7 MiB: one frame in 5 s at 80 % drop, 24 blocks and 1440 (16 GB), so that ten hours fit a disk."""
    sizes = Sizes(
        model="random:llava-ov-7b", pixel_side=384, ingest_frames=128, encode_frames=160,
        fps=0.2, keep=0.2, top_k=16, window_blocks=4, fetch_repeats=7,
    )  # fmt: skip
    on_cpu = replace(sizes, ingest_frames=8, encode_frames=8, on_request=_SLOW_ON_CPU)
    return sizes if on_accelerator else on_cpu


PRESETS: dict[str, Callable[[bool], Sizes]] = {
    "tiny": _tiny,
    "llava-ov-0.5b": _half_billion,
    "llava-ov-7b": _seven_billion,
}


def sizes_of(preset: str, *, on_accelerator: bool) -> Sizes:
    """Raises UsageError naming the presets there are."""
    if preset not in PRESETS:
        raise UsageError(f"no preset {preset!r}: use one of {', '.join(PRESETS)}", preset=preset)
    return PRESETS[preset](on_accelerator)
