"""The service beside the engine it is made of; and what an encoder gains from having many streams."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable

from cacheflow_ray.bench.results import Part
from cacheflow_ray.bench.service.engine import computing_with, ingest_in_process
from cacheflow_ray.bench.service.lab import MODEL_OPTIONS, TINY, Lab
from cacheflow_ray.bench.service.pushing import Push, Pushed, push_all, push_for
from cacheflow_ray.config import StreamSettings
from cacheflow_ray.core.dropping import KEEP_ALL
from cacheflow_ray.models import load_model
from memory_store.records import JsonValue


def measure_ingest(lab: Lab) -> Part:
    """`service_over_engine`: frames/s from a client to durable, over those of the engine in this process.

    Whole ingests in turn, each from the making of the streams to their end; the same raw pixels go into both.
    """
    cluster, sizes = lab.cluster(lab.model), lab.sizes
    model = load_model(lab.model, MODEL_OPTIONS)
    folder = lab.folder / "engine"

    def engine(run: str, num_frames: int) -> float:
        names = [f"{run}-{number}" for number in range(sizes.streams)]
        return sizes.streams * num_frames / ingest_in_process(model, folder, names, num_frames, lab.encoder_options)

    def service(run: str, num_frames: int) -> float:
        names = tuple(f"{run}-{number}" for number in range(sizes.streams))
        push = Push(address=cluster.address, names=names, num_frames=num_frames)
        return lab.elsewhere(push_all, push).result().frames_per_s

    with computing_with(lab.threads):
        rates = _in_turn(lab, {"engine": engine, "service": service}, sizes.rounds)
    shutil.rmtree(folder)
    of = {name: statistics.median(each) for name, each in rates.items()}
    details: dict[str, JsonValue] = {f"{name}_frames_per_s": rate for name, rate in of.items()}
    details |= {"streams": sizes.streams, "frames_each": sizes.frames, "torch_threads": lab.threads}
    details |= {"rounds_frames_per_s": {name: list(each) for name, each in rates.items()}}
    return Part(ratios={"service_over_engine": of["service"] / of["engine"]}, details=details)


def _in_turn(lab: Lab, runs: dict[str, Callable[[str, int], float]], rounds: int) -> dict[str, list[float]]:
    """Rates of each, forwards and backwards; a short round before them is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for at in range(rounds + 1):
        lab.note(f"ingesting {lab.sizes.streams} streams: round {at} of {rounds}")
        for name in list(runs)[:: 1 if at % 2 else -1]:
            rate = runs[name](f"ingest-{at}", lab.sizes.frames if at else 8)
            if at:
                rates[name].append(rate)
    return rates


def measure_batch(lab: Lab) -> Part:
    """`batch16_over_1`: tokens/s of one encoder with many streams, over those with one; nothing is dropped."""
    cluster, sizes = lab.cluster(TINY), lab.sizes
    settings = StreamSettings(tau=KEEP_ALL)
    seen: dict[int, list[Pushed]] = {1: [], sizes.streams: []}
    for at in range(sizes.batch_rounds):
        for count in list(seen)[:: 1 if at % 2 else -1]:
            lab.note(f"pushing {count} stream(s) to one encoder: round {at + 1} of {sizes.batch_rounds}")
            names = tuple(f"batch-{at}-{count}-{number}" for number in range(count))
            push = Push(address=cluster.address, names=names, settings=settings)
            seen[count].append(lab.elsewhere(push_for, push, sizes.batch_s).result())
            cluster.wait(0)
    tokens = {count: statistics.median(own.tokens_per_s for own in each) for count, each in seen.items()}
    frames = {count: statistics.median(own.frames_per_s for own in each) for count, each in seen.items()}
    return Part(
        ratios={"batch16_over_1": tokens[sizes.streams] / tokens[1]},
        details={
            "streams": sizes.streams,
            "many_tokens_per_s": tokens[sizes.streams],
            "one_tokens_per_s": tokens[1],
            "many_frames_per_s": frames[sizes.streams],
            "one_frames_per_s": frames[1],
        },
    )
