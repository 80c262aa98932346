"""Workloads: cameras that never stop, and archives indexed once; what their video is like, and what things cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from cacheflow_ray.errors import UsageError
from memory_store.records import JsonValue

KV_CODECS, LIBRARY_CODECS = ("native", "int8", "fp8"), ("sq8", "rabitq")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Round figures in one currency, assumed: what is rented costs about so much. Every one is an option."""

    gpu_hour: float = 2.5
    core_hour: float = 0.04
    disk_tb_month: float = 40.0
    ram_gb_month: float = 3.0
    network_gb: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """What the video is like.

    Args:
        fps, keep: frames sampled a second, and the share of their tokens that is kept.
        source_fps, megapixels, codec: of what is decoded; mbit_per_s: of what comes over the network.
    """

    fps: float = 1.0
    keep: float = 0.2
    source_fps: float = 25.0
    megapixels: float = 1920 * 1080 / 1e6
    codec: str = "h264"
    mbit_per_s: float = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Questions.

    Args:
        per_s: in all.
        top_k, answer_tokens: of each.
        hours: of its stream that a question looks at.
        streams: whose summaries are in memory because they are asked about.
        cores: that decode what one question has encoded again.
        cv2: how much service times vary: 1 as an exponential, 0 not at all.
    """

    per_s: float
    top_k: int = 8
    answer_tokens: float = 32.0
    hours: float = 24.0
    streams: int = 50
    cores: float = 8.0
    cv2: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What both kinds of workload have.

    Args:
        utilisation: that no processor goes above.
        kv_codec, library_codec: of KV on disk, and of the library's index in memory.

    Raises:
        UsageError: a value that cannot be.
    """

    video: Video = field(default_factory=Video)
    asking: Asking = field(default_factory=lambda: Asking(per_s=5.0))
    prices: Prices = field(default_factory=Prices)
    utilisation: float = 0.7
    kv_codec: str = "int8"
    library_codec: str = "sq8"

    def __post_init__(self) -> None:
        _check("utilisation", 0 < self.utilisation < 1, "between 0 and 1")
        _check("keep", 0 < self.video.keep <= 1, "above 0 and up to 1")
        _check("fps", self.video.fps > 0, "above 0")
        _check("kv-codec", self.kv_codec in KV_CODECS, ", ".join(KV_CODECS))
        _check("library-codec", self.library_codec in LIBRARY_CODECS, ", ".join(LIBRARY_CODECS))

    def as_json(self) -> dict[str, JsonValue]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Live(Common):
    """Cameras that never stop. `kv_days`, `summary_days`: how long KV, and all else of a block, is kept."""

    streams: int = 1000
    kv_days: float = 7.0
    summary_days: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive(Common):
    """Hours indexed once. `summary_only`: the share of them whose KV is dropped, to be encoded again when asked for."""

    hours: float = 100_000.0
    deadline_days: float = 30.0
    summary_only: float = 0.9

    def __post_init__(self) -> None:
        Common.__post_init__(self)
        _check("summary-only", 0 <= self.summary_only <= 1, "0 to 1")


def _check(option: str, holds: bool, allowed: str) -> None:
    if not holds:
        raise UsageError(f"--{option}: allowed: {allowed}")
