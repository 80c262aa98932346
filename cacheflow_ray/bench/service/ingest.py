"""The service beside the engine it is made of; and what an encoder gains from having many streams."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable

from cacheflow_ray.bench.results import Part
from cacheflow_ray.bench.service.engine import computing_with, ingest_in_process
from cacheflow_ray.bench.service.lab import MODEL_OPTIONS, TINY, Lab
from cacheflow_ray.bench.service.pushing import Push, Pushed, names_of, push_all, push_for
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

    def push(run: str, num_frames: int) -> Push:
        return Push(address=cluster.address, names=names_of(run, sizes.streams), num_frames=num_frames)

    def engine(run: str, num_frames: int) -> float:
        seconds = ingest_in_process(model, folder, push(run, num_frames), lab.encoder_options)
        return sizes.streams * num_frames / seconds

    def service(run: str, num_frames: int) -> float:
        return lab.elsewhere(push_all, push(run, num_frames)).result().frames_per_s

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
    """`batch16_over_1`: tokens/s of one encoder with many streams, over those with one; nothing is dropped.

    Every stream is pushed as fast as its credits let: frames of one stream are encoded several at a time, too. Beside
    it, streams of which one frame at a time is on its way, as of a camera: the next is sent once the last is durable.
    """
    seen: dict[str, list[Pushed]] = {}
    for at in range(lab.sizes.batch_rounds):
        lab.note(f"pushing one stream and {lab.sizes.streams}: round {at + 1} of {lab.sizes.batch_rounds}")
        for name, count, ahead in _batches(lab.sizes.streams)[:: 1 if at % 2 else -1]:
            seen.setdefault(name, []).append(_watched(lab, f"{name}-{at}", count, ahead))
    tokens = {name: statistics.median(own.tokens_per_s for own in each) for name, each in seen.items()}
    details: dict[str, JsonValue] = {f"{name}_tokens_per_s": rate for name, rate in tokens.items()}
    details |= {f"{name}_frames_per_s": statistics.median(own.frames_per_s for own in seen[name]) for name in tokens}
    details |= {"one_at_a_time_ratio": tokens["many_one_at_a_time"] / tokens["one_one_at_a_time"]}
    return Part(ratios={"batch16_over_1": tokens["many"] / tokens["one"]}, details=details)


def _batches(streams: int) -> list[tuple[str, int, int | None]]:
    """Name, number of streams, frames of each on their way."""
    return [
        ("one", 1, None),
        ("many", streams, None),
        ("many_one_at_a_time", streams, 1),
        ("one_one_at_a_time", 1, 1),
    ]


def _watched(lab: Lab, name: str, count: int, ahead: int | None) -> Pushed:
    cluster = lab.cluster(TINY)
    push = Push(
        address=cluster.address,
        names=names_of(name, count),
        settings=StreamSettings(tau=KEEP_ALL),
        ahead=ahead,
    )
    pushed = lab.elsewhere(push_for, push, lab.sizes.batch_s).result()
    cluster.wait_until_idle(push.names)
    return pushed
