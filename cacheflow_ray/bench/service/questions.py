"""Questions to the service: how soon they are answered while much is ingested, and what it costs to ask from afar."""

from __future__ import annotations

import asyncio
import shutil
import statistics
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import numpy as np

from cacheflow_ray.bench.results import Part
from cacheflow_ray.bench.service.engine import computing_with, ingest_in_process
from cacheflow_ray.bench.service.lab import MODEL_OPTIONS, TINY, Cluster, Lab
from cacheflow_ray.bench.service.pushing import Push, names_of, push_all, push_for
from cacheflow_ray.config import AskOptions, StreamSettings
from cacheflow_ray.core.dropping import KEEP_ALL
from cacheflow_ray.engine import VideoMemory
from cacheflow_ray.models import load_model
from cacheflow_ray.service.client import AsyncClient
from memory_store.records import JsonValue

#: Of words the bundled model knows.
QUESTION = "what color was the star with number seven"

#: Streams that are asked about.
_BESIDE_INGESTS, _BESIDE_ENGINE = "bench-asked-beside-ingests", "bench-asked-beside-engine"

_TOKENS = 8
_AT_ONCE = 8
_MARGIN_S = 1.5


def measure_busy(lab: Lab) -> Part:
    """`ttft_busy_over_idle`: median time to first token with streams ingested at full speed, over that without.

    Questions come at a fixed rate, whether or not those before them are answered; a client waits for the first piece.
    """
    cluster, sizes = lab.cluster(lab.model), lab.sizes
    _make_asked(lab, cluster, _BESIDE_INGESTS)
    lab.note(f"asking {sizes.questions} questions while nothing else goes on")
    _ask_at_rate(cluster, 3, sizes.questions_per_s)
    idle = _ask_at_rate(cluster, sizes.questions, sizes.questions_per_s)
    lab.note(f"asking them while {sizes.streams} streams are ingested")
    push = Push(address=cluster.address, names=names_of("busy", sizes.streams))
    asking_s = sizes.questions / sizes.questions_per_s
    pushing = lab.elsewhere(push_for, push, asking_s + _MARGIN_S)
    cluster.wait_until_pushed(push.names)
    busy = _ask_at_rate(cluster, sizes.questions, sizes.questions_per_s)
    over = pushing.done()
    pushed = pushing.result()
    cluster.wait_until_idle(push.names)
    details: dict[str, JsonValue] = {
        f"{name}_{what}_ms": float(np.percentile(times, rank))
        for name, times in (("idle", idle), ("busy", busy))
        for what, rank in (("p50", 50), ("p99", 99))
    }
    details |= {"questions": sizes.questions, "questions_per_s": sizes.questions_per_s, "streams": sizes.streams}
    details |= {"ingested_frames_per_s": pushed.frames_per_s, "ingest_ended_early": over}
    return Part(ratios={"ttft_busy_over_idle": statistics.median(busy) / statistics.median(idle)}, details=details)


def _ask_at_rate(cluster: Cluster, count: int, per_s: float) -> list[float]:
    """Milliseconds from when each is due to its first piece."""

    async def ask(client: AsyncClient, due: float) -> float:
        await asyncio.sleep(max(0.0, due - perf_counter()))
        async with client.ask(_BESIDE_INGESTS, QUESTION, options=AskOptions(max_new_tokens=_TOKENS)) as answer:
            first_ms = 0.0
            async for _ in answer:
                first_ms = first_ms or 1e3 * (perf_counter() - due)
        return first_ms

    async def ask_all() -> list[float]:
        async with AsyncClient(cluster.address) as client:
            start = perf_counter()
            return await asyncio.gather(*[ask(client, start + at / per_s) for at in range(count)])

    return asyncio.run(ask_all())


def measure_asking(lab: Lab) -> Part:
    """`ask_overhead_ms`: median of a whole answer through gRPC and Ray, less that of the same in this process.

    Both answer about a stream of the same frames, in turn, with as many threads; blocks are retrieved.
    `asked8_over_1`: answers per second of the service, eight questions at a time / one after another.
    """
    cluster, sizes = lab.cluster(TINY), lab.sizes
    folder, model = lab.folder / "asked", load_model(TINY, MODEL_OPTIONS)
    push = _make_asked(lab, cluster, _BESIDE_ENGINE, StreamSettings(tau=KEEP_ALL, window_blocks=4))
    with computing_with(lab.threads):
        ingest_in_process(model, folder, push, lab.encoder_options)
        lab.note(f"asking {sizes.asked} questions here and there in turn")
        with VideoMemory.open(folder, model=model) as memory, cluster.client() as client:
            times = _asked_in_turn({"in_process": memory.ask, "service": client.ask}, sizes.asked)
    shutil.rmtree(folder)
    lab.note(f"asking {sizes.asked} questions, {_AT_ONCE} at a time and one after another")
    per_s = _answers_per_s(cluster, sizes.asked)
    p50 = {name: statistics.median(whole) for name, (whole, _) in times.items()}
    details: dict[str, JsonValue] = {f"{name}_p50_ms": value for name, value in p50.items()}
    details |= {f"{name}_first_token_p50_ms": statistics.median(first) for name, (_, first) in times.items()}
    details |= {"tokens": _TOKENS, "questions": sizes.asked}
    details |= {f"answers_per_s_{count}_at_once": value for count, value in per_s.items()}
    ratios = {
        "ask_overhead_ms": p50["service"] - p50["in_process"],
        "asked8_over_1": per_s[_AT_ONCE] / per_s[1],
    }
    return Part(ratios=ratios, details=details)


def _answers_per_s(cluster: Cluster, questions: int) -> dict[int, float]:
    """By how many are under way at a time; the median of three turns each."""

    async def ask(client: AsyncClient, free: asyncio.Semaphore) -> None:
        async with free, client.ask(_BESIDE_ENGINE, QUESTION, options=AskOptions(max_new_tokens=_TOKENS)) as answer:
            async for _ in answer:
                pass

    async def ask_all() -> dict[int, list[float]]:
        found: dict[int, list[float]] = {1: [], _AT_ONCE: []}
        async with AsyncClient(cluster.address) as client:
            for _ in range(3):
                for at_once, speeds in found.items():
                    start, free = perf_counter(), asyncio.Semaphore(at_once)
                    await asyncio.gather(*[ask(client, free) for _ in range(questions)])
                    speeds.append(questions / (perf_counter() - start))
        return found

    return {at_once: statistics.median(speeds) for at_once, speeds in asyncio.run(ask_all()).items()}


def _asked_in_turn(asks: Mapping[str, Callable[..., Any]], rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Milliseconds to the end of each answer and to its first piece; two rounds before are not counted."""
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in asks}
    for at in range(-2, rounds):
        for name in list(asks)[:: 1 if at % 2 else -1]:
            first_ms, start = 0.0, perf_counter()
            answer = asks[name](_BESIDE_ENGINE, QUESTION, options=AskOptions(max_new_tokens=_TOKENS))
            for _ in answer:
                first_ms = first_ms or 1e3 * (perf_counter() - start)
            assert answer.result.evidence, "it answers from what was ingested"
            if at >= 0:
                times[name][0].append(1e3 * (perf_counter() - start))
                times[name][1].append(first_ms)
    return times


def _make_asked(lab: Lab, cluster: Cluster, name: str, settings: StreamSettings | None = None) -> Push:
    """A stream to ask about."""
    lab.note("making a stream to ask about")
    push = Push(address=cluster.address, names=(name,), num_frames=lab.sizes.frames, settings=settings)
    lab.elsewhere(push_all, push).result()
    return push
