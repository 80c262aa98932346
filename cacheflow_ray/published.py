"""What papers report, to read beside what was measured here: other machines, other software, real weights.

Sources: CacheFlow, arXiv 2511.13644; ReKV, arXiv 2503.00540 (ICLR 2025), as the former tabulates it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from memory_store.records import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One line of a published table.

    Args:
        method: as its paper calls it, with what distinguishes it.
        size: of the language model: 0.5B or 7B.
        accuracy: per cent; None where it was not reported, as all that follows.
        score: a judge's mean, 0 to 5.
        drop: per cent of visual tokens dropped.
        latency_s: of one question.
        gpu_memory_gb: peak.
        part: the part of the benchmark it is about; "" for all of it.
    """

    method: str
    size: str
    accuracy: float | None = None
    score: float | None = None
    drop: float | None = None
    latency_s: float | None = None
    gpu_memory_gb: float | None = None
    part: str = ""


CACHEFLOW, REKV = "CacheFlow", "ReKV"


def _rows(*lines: tuple[str, str, float, float | None, float | None]) -> tuple[PublishedRow, ...]:
    """(method, size, accuracy, score, drop) each."""
    return tuple(
        PublishedRow(method=method, size=size, accuracy=accuracy, score=score, drop=drop)
        for method, size, accuracy, score, drop in lines
    )


#: Of two benchmarks that the paper does not have: baselines, and the nearest relative of token dropping at 1 fps.
_FLOOR_BLIND, _FLOOR_LAST = "blind (no video)", "last 4 frames"
_RELATIVE, _RELATIVE_WHOLE = "token dropping, 1 fps", "nothing dropped, 1 fps"

PUBLISHED: dict[str, tuple[PublishedRow, ...]] = {
    "qaego4d": _rows(
        (CACHEFLOW, "0.5B", 50.8, None, 81.8), (REKV, "0.5B", 48.2, None, None),
        (CACHEFLOW, "7B", 55.4, None, 70.9), (REKV, "7B", 54.8, None, None),
    ),
    "mlvu": _rows(
        (CACHEFLOW, "0.5B", 54.6, None, 79.7), (REKV, "0.5B", 54.2, None, None),
        (CACHEFLOW, "7B", 66.9, None, 67.1), (REKV, "7B", 66.5, None, None),
    ),
    "egoschema": _rows(
        (CACHEFLOW, "0.5B", 27.9, None, 82.6), (REKV, "0.5B", 25.6, None, None),
        (CACHEFLOW, "7B", 60.2, None, 72.0), (REKV, "7B", 60.7, None, None),
    ),
    "activitynet-qa": _rows(
        (CACHEFLOW, "0.5B", 50.6, 3.47, 80.8), (REKV, "0.5B", 49.9, 3.01, None),
        (CACHEFLOW, "7B", 59.6, 3.64, 70.9), (REKV, "7B", 60.2, 3.52, None),
    ),
    "rvs-ego": (
        PublishedRow(
            method=CACHEFLOW, size="0.5B", accuracy=54.3, score=3.87, drop=86.8, latency_s=1.38, gpu_memory_gb=2.9
        ),
        PublishedRow(method=REKV, size="0.5B", accuracy=51.9, score=3.80, latency_s=1.60, gpu_memory_gb=19.0),
        PublishedRow(
            method=CACHEFLOW, size="7B", accuracy=61.6, score=3.94, drop=78.5, latency_s=2.03, gpu_memory_gb=26.4
        ),
        PublishedRow(method=REKV, size="7B", accuracy=59.7, score=3.90, latency_s=3.30, gpu_memory_gb=38.0),
    ),
    "rvs-movie": (
        *_rows((CACHEFLOW, "0.5B", 42.6, 3.34, 70.7), (CACHEFLOW, "7B", 50.5, 3.44, 58.0)),
        PublishedRow(method=_RELATIVE, size="7B", accuracy=49.03, drop=54.0),
        PublishedRow(method=_RELATIVE_WHOLE, size="7B", accuracy=47.61, drop=0.0),
    ),
    "ovo-bench": (
        PublishedRow(method=_RELATIVE, size="7B", accuracy=61.60, drop=73.0, part="realtime"),
        PublishedRow(method=_RELATIVE_WHOLE, size="7B", accuracy=63.10, drop=0.0, part="realtime"),
        PublishedRow(method=_RELATIVE, size="7B", accuracy=45.44, drop=74.0, part="backward"),
        PublishedRow(method=_RELATIVE_WHOLE, size="7B", accuracy=45.73, drop=0.0, part="backward"),
        PublishedRow(method=_FLOOR_BLIND, size="7B", accuracy=32.2, part="realtime"),
        PublishedRow(method=_FLOOR_LAST, size="", accuracy=67.7),
    ),
    "streamingbench": (
        PublishedRow(method=_RELATIVE, size="7B", accuracy=70.82, drop=77.0, part="real-time"),
        PublishedRow(method=_RELATIVE_WHOLE, size="7B", accuracy=70.30, drop=0.0, part="real-time"),
        PublishedRow(method=_FLOOR_BLIND, size="7B", accuracy=50.6, part="real-time"),
        PublishedRow(method=_FLOOR_LAST, size="", accuracy=80.6),
    ),
}  # fmt: skip

#: Encoding speed of the ReKV family on StreamingBench, 7B.
ENCODING_7B: list[JsonValue] = [{"drop": 0.0, "frames_per_s": 11.4}, {"drop": 0.77, "frames_per_s": 42.0}]

#: What stands beside a measurement of speed: preset -> size.
_SIZES = {"llava-ov-0.5b": "0.5B", "llava-ov-7b": "7B"}


def published(preset: str) -> JsonValue:
    """Published latency of a question and GPU memory on RVS-Ego for a preset; None where there are none."""
    size = _SIZES.get(preset)
    if size is None:
        return None
    rows: dict[str, JsonValue] = {"note": "published numbers, not measured here", **dict(_costs(size))}
    return rows | {"rekv_family_frames_per_s": ENCODING_7B} if size == "7B" else rows


def _costs(size: str) -> Iterator[tuple[str, JsonValue]]:
    for row in PUBLISHED["rvs-ego"]:
        if row.size == size:
            yield row.method.lower(), {"latency_s": row.latency_s, "gpu_memory_gb": row.gpu_memory_gb}
