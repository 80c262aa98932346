"""What the papers report, to read beside what was measured here: other machines, other software, real weights."""

from __future__ import annotations

from memory_store.records import JsonValue

#: METHOD.md section 7: latency of a question and GPU memory on RVS-Ego; encoding speed of the ReKV family, 7B.
PUBLISHED: dict[str, dict[str, JsonValue]] = {
    "llava-ov-0.5b": {
        "cacheflow": {"latency_s": 1.38, "gpu_memory_gb": 2.9},
        "rekv": {"latency_s": 1.60, "gpu_memory_gb": 19.0},
    },
    "llava-ov-7b": {
        "cacheflow": {"latency_s": 2.03, "gpu_memory_gb": 26.4},
        "rekv": {"latency_s": 3.30, "gpu_memory_gb": 38.0},
        "rekv_family_frames_per_s": [{"drop": 0.0, "frames_per_s": 11.4}, {"drop": 0.77, "frames_per_s": 42.0}],
    },
}


def published(preset: str) -> JsonValue:
    """Published rows for a preset; None where there are none."""
    rows = PUBLISHED.get(preset)
    return rows and {"note": "published numbers, not measured here", **rows}
