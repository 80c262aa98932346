"""Many streams at once: equal shares, and memory that is bounded by their credits."""

from __future__ import annotations

import statistics

from cacheflow_ray.bench.results import Part
from cacheflow_ray.bench.service.lab import TINY, Lab
from cacheflow_ray.bench.service.pushing import Push, names_of, push_for


def measure_fairness(lab: Lab) -> Part:
    """`fairness_max_over_min`: frames made durable of the stream with most, over those of the one with least.

    Counted for a fixed time once every stream has begun; each is pushed as fast as its credits let. A stream that got
    nothing counts as if it had got one frame.
    """
    cluster, sizes = lab.cluster(TINY), lab.sizes
    before = cluster.resident_mb()
    lab.note(f"pushing {sizes.crowd} streams for {sizes.crowd_s:g} s")
    push = Push(address=cluster.address, names=names_of("crowd", sizes.crowd))
    pushing = lab.elsewhere(push_for, push, sizes.crowd_s)
    cluster.wait_until_pushed(push.names)
    during = cluster.resident_mb()
    pushed = pushing.result()
    cluster.wait_until_idle(push.names)
    after = cluster.resident_mb()
    least, most = min(pushed.frames), max(pushed.frames)
    return Part(
        ratios={"fairness_max_over_min": most / max(least, 1)},
        details={
            "streams": sizes.crowd,
            "frames_per_s": pushed.frames_per_s,
            "frames_most": most,
            "frames_median": statistics.median(pushed.frames),
            "frames_least": least,
            "own_memory_mb": {"before": dict(before), "during": dict(during), "after": dict(after)},
        },
    )
