"""The library behind actors: as in one process, over one store or several, and each tenant's own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cacheflow_ray.actors.api import Answered, AskCall, Found, SearchCall
from cacheflow_ray.actors.cluster import Cluster
from cacheflow_ray.actors.remote_store import RemoteLibrary
from cacheflow_ray.actors.setup import StorePlace
from cacheflow_ray.actors.store_shard import StoreShard
from cacheflow_ray.config import AskOptions, StoreOptions
from cacheflow_ray.engine import LibraryScope, VideoMemory
from cacheflow_ray.errors import NothingToAnswer
from cacheflow_ray.models import load_model
from memory_store import LibraryHit, StreamNotFound, TimeRange
from memory_store.testing import MemoryStore
from tests.actors.running import FLOAT32, MODEL, Running, push_all, wanted
from tests.memory_store.conformance import D, H, S, V, make_block, make_commit, make_record
from tests.oracles import moving_frames

TEXT = "a thing"


@pytest.mark.parametrize("per_head", [False, True])
def test_several_stores_are_searched_as_one(tmp_path: Path, per_head: bool) -> None:
    shards = [StoreShard(StorePlace(name=f"store-{at}", folder=tmp_path / f"{at}"), StoreOptions()) for at in range(2)]
    whole = MemoryStore()
    for number, name in enumerate(("a", "b", "c", "d", "e")):
        rng = np.random.default_rng(number)
        summaries = rng.standard_normal((6, S, V, H, D)).astype(np.float32)
        blocks = [make_block(at, stream_id=name, summary=own) for at, own in enumerate(summaries)]
        for store in (shards[number % 2], whole):
            call = store.call if isinstance(store, StoreShard) else lambda what, *args: getattr(whole, what)(*args)
            call("create_stream", make_record(name))
            call("commit", [make_commit(*blocks, num_blocks=6, stream_id=name)])
    library = RemoteLibrary(shards)  # type: ignore[arg-type]  # as parts of the cluster, without Ray between
    queries = np.random.default_rng(9).standard_normal((S, H, D)).astype(np.float32)
    for narrowed in ({}, {"streams": ["b", "c", "x"]}, {"time_range": TimeRange(start_s=2.1, end_s=4.0)}):
        how = {"fingerprint": "model-a", "limit": 7, "per_head": per_head, **narrowed}
        for ours, theirs in zip(library.search(queries, **how), whole.library.search(queries, **how), strict=True):
            assert list(map(place, ours)) == list(map(place, theirs))
            np.testing.assert_allclose([hit.score for hit in ours], [hit.score for hit in theirs], atol=3e-6)
    for shard in shards:
        shard.close()


def place(hit: LibraryHit) -> tuple[str, int]:
    return hit.stream_id, hit.block_idx


async def fill(cluster: Cluster) -> None:
    names = ("found:one", "found:two", "sought:one", "library-one")
    for number, name in enumerate(names):
        tenant = name.rpartition(":")[0]
        await cluster.create_stream(replace(wanted(name), tenant=tenant, labels={"in": "library", "at": str(number)}))
        await push_all(cluster, name, moving_frames(40, seed=number))


SCOPES = [
    (LibraryScope(labels={"in": "library"}), {"found:one", "found:two", "sought:one", "library-one"}),
    (LibraryScope(tenant="found"), {"found:one", "found:two"}),
    (LibraryScope(tenant="found", streams="one"), {"found:one"}),
    (LibraryScope(tenant="", streams="library-*"), {"library-one"}),
]


def test_the_library_is_searched_as_in_one_process(live: Running) -> None:
    options = AskOptions(top_k=40, time_range=TimeRange(start_s=2.0))

    async def run() -> tuple[list[Found], Answered]:
        cluster = live.cluster()
        await fill(cluster)
        calls = [
            SearchCall(streams=(), library=scope, text=TEXT, options=options, thumbnails=True) for scope, _ in SCOPES
        ]
        found = [await cluster.search(call) for call in calls]
        answer = await answered(cluster, LibraryScope(tenant="found"))
        with pytest.raises(NothingToAnswer, match="there are no streams"):
            await answered(cluster, LibraryScope(tenant="nobody"))
        with pytest.raises(StreamNotFound):
            await cluster.search(SearchCall(streams=("library-one", "x"), text=TEXT, options=AskOptions()))
        cluster._store.close()
        return found, answer

    found, answer = asyncio.run(run())
    with VideoMemory.open(live.options.data, model=load_model(MODEL, FLOAT32), read_only=True) as memory:
        for (scope, reached), own in zip(SCOPES, found, strict=True):
            here = memory.search_library(TEXT, where=scope, top_k=40, time_range=options.time_range)
            assert [(moment.stream_id, moment.evidence) for moment in own.moments] == [
                (moment.stream, moment.evidence) for moment in here.moments
            ]
            assert {moment.stream_id for moment in own.moments} == reached
            assert all(moment.thumbnail.startswith(b"\xff\xd8") for moment in own.moments)
        best = memory.search_library(TEXT, where=LibraryScope(tenant="found"), top_k=8).moments[0]
    assert answer.stream_id == best.stream


async def answered(cluster: Cluster, scope: LibraryScope) -> Answered:
    call = AskCall(streams=(), library=scope, question=TEXT, options=AskOptions(max_new_tokens=4))
    *_, last = [piece async for piece in cluster.ask(call)]
    assert isinstance(last, Answered)
    assert {moment.stream_id for moment in last.moments} == {last.stream_id}
    return last


def test_a_store_that_comes_back_is_searched_again(live: Running) -> None:
    """Its index is made anew from what is stored."""

    async def run() -> None:
        cluster = live.cluster()
        await push_all(cluster, "before-death", moving_frames(40, seed=8))
        call = SearchCall(streams=(), library=LibraryScope(streams="before-*"), text=TEXT, options=AskOptions(top_k=5))
        before = await cluster.search(call)
        live.kill("store-0")
        assert await cluster.search(call) == before

    asyncio.run(run())
