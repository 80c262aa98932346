"""What an actor tells of its process."""

from __future__ import annotations

import resource
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector


def process_registry() -> CollectorRegistry:
    """A registry of one's own that has the process's memory, CPU time and open files in it."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
