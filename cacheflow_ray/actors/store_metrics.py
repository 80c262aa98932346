"""What a store actor tells of itself, as Prometheus has it; free of torch, so that a store starts at once."""

from __future__ import annotations

from prometheus_client import Gauge, generate_latest

from cacheflow_ray.actors.process import process_registry
from memory_store.hot import HotStats
from memory_store.upkeep import StoreStats


def store_metrics(stats: StoreStats, hot: HotStats) -> str:
    """Prometheus text."""
    values = {
        "streams": (stats.streams, "Streams kept."),
        "blocks": (stats.blocks, "Blocks kept."),
        "tokens": (stats.tokens, "Tokens kept."),
        "absent_blocks": (stats.absent, "Blocks kept without their KV."),
        "live_bytes": (stats.live_bytes, "Bytes of what is kept."),
        "file_bytes": (stats.file_bytes, "Bytes of the data files."),
        "transactions": (stats.transactions, "Transactions committed."),
        "hot_hits": (hot.hits, "Blocks found in the hot tier."),
        "hot_misses": (hot.misses, "Blocks not found in it."),
        "hot_bytes": (hot.num_bytes, "Bytes of the hot tier."),
    }
    registry = process_registry()
    for name, (value, about) in values.items():
        Gauge(f"cacheflow_store_{name}", about, registry=registry).set(value)
    return generate_latest(registry).decode()
