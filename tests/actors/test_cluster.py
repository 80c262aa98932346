"""The engine behind real actors: the same blocks, whoever dies meanwhile; questions that outlive an answerer."""

from __future__ import annotations

import asyncio
import io
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cacheflow_ray.actors.api import Answered, AskCall, FramePayload, NewStream, PayloadKind, SearchCall
from cacheflow_ray.actors.cluster import Cluster
from cacheflow_ray.config import AskOptions
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.position import Overload
from cacheflow_ray.errors import BrokenMedia, DeadlinePassed, UsageError
from cacheflow_ray.media import Frame, write_video
from cacheflow_ray.models import load_model
from memory_store import EpochFenced, Retention, Store, StreamNotFound
from memory_store.testing import MemoryStore
from tests.actors.running import FLOAT32, MODEL, Running, push_all, raw, wanted
from tests.oracles import encode, moving_frames, settings, stored

FRAMES = moving_frames(48)


@pytest.fixture(scope="module")
def plain() -> Backend:
    """The frames ingested in one process, as stream "plain"."""
    backend = Backend(model=load_model(MODEL, FLOAT32), store=MemoryStore())
    encode(backend, {"plain": FRAMES}, settings(), chunk=8)
    return backend


def check_same(live: Running, name: str, plain: Backend) -> None:
    """Tokens alike to the bit, KV within 1e-5."""
    with Store.open(live.options.data, read_only=True) as store:
        assert store.stats(name).num_blocks == plain.store.stats("plain").num_blocks > 3
        tokens, kv = stored(Backend(model=plain.model, store=store), name)
    plain_tokens, plain_kv = stored(plain, "plain")
    assert np.array_equal(tokens, plain_tokens)
    np.testing.assert_allclose(kv, plain_kv, atol=1e-5)


def test_pushed_through_actors_it_is_the_stream_ingested_in_one_process(live: Running, plain: Backend) -> None:
    async def run() -> None:
        cluster = live.cluster()
        done = await asyncio.gather(*[push_all(cluster, f"same-{at}", FRAMES, size=3 + at) for at in range(4)])
        assert {(own.next_seq, own.frames, own.complete) for own in done} == {(48, 48, True)}
        assert {status.name for status in (await cluster.status()).actors if status.alive} >= {"encoder-0", "encoder-1"}

    asyncio.run(run())
    for at in range(4):
        check_same(live, f"same-{at}", plain)


@pytest.mark.parametrize("victim", ["encoder", "store-0", "director"])
def test_whoever_dies_meanwhile_no_frame_is_lost_or_doubled(live: Running, plain: Backend, victim: str) -> None:
    name = f"killed-{victim}"

    async def run() -> None:
        cluster = live.cluster()

        def kill(at: int) -> None:
            if at == 16 and killed:
                owner = killed.pop()
                live.kill(owner)

        await cluster.create_stream(wanted(name))
        owner = await cluster._direct("encoder_for", name)
        killed = [owner if victim == "encoder" else victim]
        position = await push_all(cluster, name, FRAMES, between=kill)
        assert not killed
        assert (position.frames, position.complete) == (48, True)

    asyncio.run(run())
    check_same(live, name, plain)


async def asked(cluster: Cluster, name: str, question: str = "What is there?", **how: object) -> tuple[str, Answered]:
    call = AskCall(streams=(name,), question=question, options=AskOptions(max_new_tokens=8))
    pieces: list[str] = []
    last: Answered | None = None
    async for what in cluster.ask(replace(call, **how)):  # type: ignore[arg-type]
        if isinstance(what, str):
            pieces.append(what)
        else:
            last = what
    assert last is not None
    return "".join(pieces), last


def test_questions_are_answered_with_evidence_and_followed_up(live: Running) -> None:
    async def run() -> None:
        cluster = live.cluster()
        await push_all(cluster, "asked", FRAMES)
        text, last = await asked(cluster, "asked", thumbnails=True)
        assert text == last.result.text
        assert last.stream_id == "asked"
        assert last.moments[0].thumbnail.startswith(b"\xff\xd8")
        options = AskOptions(max_new_tokens=4, session_id=last.result.session_id)
        assert (await asked(cluster, "asked", "And then?", options=options))[1].result.session_id == options.session_id
        call = SearchCall(streams=("asked", "same-0"), text="a thing", options=AskOptions(top_k=3))
        assert 0 < len((await cluster.search(call)).moments) <= 3
        both = replace(last, stream_id="")
        assert both.result.usage.context_tokens > 0
        with pytest.raises(StreamNotFound):
            await asked(cluster, "nobody")
        with pytest.raises(DeadlinePassed):
            await asked(cluster, "asked", deadline_s=time.time() - 1)

    asyncio.run(run())


def test_an_answerer_that_dies_is_passed_over(live: Running) -> None:
    async def run() -> None:
        cluster = live.cluster()
        await push_all(cluster, "passed-over", FRAMES)
        await asked(cluster, "passed-over")
        live.kill("answerer-0")
        for _ in range(4):
            assert (await asked(cluster, "passed-over"))[1].result.usage.generated_tokens > 0

    asyncio.run(run())


def test_an_answer_nobody_waits_for_is_given_up(live: Running) -> None:
    async def run() -> None:
        cluster = live.cluster()
        await push_all(cluster, "given-up", FRAMES)
        options = AskOptions(max_new_tokens=2000)
        stream = cluster.ask(AskCall(streams=("given-up",), question="What is there?", options=options))
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]
        deadline = time.monotonic() + 10
        while any("under_way 1" in own.exposition for own in (await cluster.status()).actors):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)

    asyncio.run(run())


def test_an_ask_waits_for_the_frame_it_must_see(live: Running) -> None:
    async def run() -> None:
        cluster = live.cluster()
        session = await cluster.open_ingest(wanted("waited-for"), PayloadKind.RGB, Overload.BLOCK)
        await session.push(raw(FRAMES[:8]))
        waiting = asyncio.create_task(asked(cluster, "waited-for", after_seq=16))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        await session.push(raw(FRAMES[8:16]))
        assert (await asyncio.wait_for(waiting, 20))[1].result.usage.context_tokens > 0
        await session.close()

    asyncio.run(run())


def test_images_and_whole_video_files_are_decoded_where_they_are_encoded(live: Running, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_video(clip, (frame.image for frame in FRAMES), fps=4)
    data = clip.read_bytes()

    def png(frame: Frame) -> bytes:
        out = io.BytesIO()
        Image.fromarray(frame.image).save(out, "PNG")
        return out.getvalue()

    async def run() -> None:
        cluster = live.cluster()
        session = await cluster.open_ingest(wanted("pngs"), PayloadKind.IMAGE, Overload.BLOCK)
        payloads = [FramePayload(seq=own.seq, timestamp_s=own.timestamp_s, data=png(own)) for own in FRAMES[:8]]
        assert (await session.push(payloads)).frames == 8
        with pytest.raises(BrokenMedia, match="frame 8"):
            await session.push([FramePayload(seq=8, timestamp_s=8.0, data=b"\xff\xd8\xff no picture")])
        again = await cluster.open_ingest(wanted("pngs"), PayloadKind.IMAGE, Overload.BLOCK)
        assert again.position.next_seq == 8
        await again.close()
        film = await cluster.open_ingest(wanted("film", fps=4.0), PayloadKind.CONTAINER, Overload.BLOCK)
        for at in range(0, len(data), 1000):
            await film.push_chunk(at, data[at : at + 1000])
        last = await film.finish()
        assert (last.frames, last.complete) == (48, True)

    asyncio.run(run())


def test_a_newer_session_takes_a_stream_over(live: Running) -> None:
    async def run() -> None:
        cluster = live.cluster()
        first = await cluster.open_ingest(wanted("taken-over"), PayloadKind.RGB, Overload.BLOCK)
        await first.push(raw(FRAMES[:4]))
        second = await cluster.open_ingest(wanted("taken-over"), PayloadKind.RGB, Overload.BLOCK)
        assert second.position.next_seq == 4
        with pytest.raises(EpochFenced):
            await first.push(raw(FRAMES[4:8]))
        assert (await second.push(raw(FRAMES[4:8]))).frames == 8
        await second.close()

    asyncio.run(run())


def test_the_service_reads_sources_itself(live: Running) -> None:
    clip = live.options.data.parent / "source.mp4"
    write_video(clip, (frame.image for frame in FRAMES), fps=4)

    async def run() -> None:
        cluster = live.cluster()
        new = NewStream(stream_id="pulled", settings=settings(fps=4.0), source_uri="source.mp4")
        assert (await cluster.create_stream(new)).source_uri == str(clip)
        with pytest.raises(UsageError, match="reads no file"):
            await cluster.create_stream(NewStream(stream_id="outside", source_uri="../../etc/passwd"))
        deadline = time.monotonic() + 60
        while not (view := await cluster.get_stream("pulled")).position.complete:
            assert time.monotonic() < deadline, view
            await asyncio.sleep(0.2)
        assert view.position.frames == 48
        # What is dropped of it is had again from the file the service reads; what was pushed has none.
        archive = Retention(summary_only_after_s=0.0)
        retained = replace(new, stream_id="archived", retention=archive)
        await cluster.create_stream(retained)
        while not (await cluster.get_stream("archived")).position.complete:
            assert time.monotonic() < deadline, view
            await asyncio.sleep(0.2)
        session = await cluster.open_ingest(
            replace(wanted("pushed"), retention=archive), PayloadKind.RGB, Overload.BLOCK
        )
        await session.push(raw(FRAMES))
        await session.close()
        for name, why in (("archived", f"re-encoded from '{clip}': "), ("pushed", "the stream was pushed")):
            call = AskCall(streams=(name,), question="what moves?", options=AskOptions(top_k=2, max_new_tokens=2))
            *_, last = [piece async for piece in cluster.ask(call)]
            assert isinstance(last, Answered)
            assert any(why in warning for warning in last.result.warnings), last

    asyncio.run(run())


def test_streams_are_listed_changed_and_deleted(live: Running) -> None:
    async def run() -> None:
        cluster = live.cluster()
        for name in ("acme:one", "acme:two", "other:one"):
            new = replace(wanted(name), tenant=name.partition(":")[0], labels={"place": "door"})
            await cluster.create_stream(new)
        listed = await cluster.list_streams("acme:", "acme:one", 5)
        assert [view.info.stream for view in listed] == ["acme:two"]
        changed = await cluster.update_stream("acme:one", labels={"place": "yard"}, retention=Retention(max_blocks=9))
        assert (changed.info.labels, changed.retention) == ({"place": "yard"}, Retention(max_blocks=9))
        await cluster.delete_stream("acme:one")
        with pytest.raises(StreamNotFound):
            await cluster.get_stream("acme:one")

    asyncio.run(run())


def test_encoders_come_and_go_while_streams_are_pushed(live: Running, plain: Backend) -> None:
    async def run() -> None:
        cluster = live.cluster()
        names = [f"scaled-{at}" for at in range(4)]
        pushing = [asyncio.create_task(push_all(cluster, name, FRAMES, size=2)) for name in names]
        assert await cluster.scale(encoders=3, answerers=1) == (3, 1)
        assert await cluster.scale(encoders=1, answerers=None) == (1, 1)
        done = await asyncio.gather(*pushing)
        assert {own.frames for own in done} == {48}
        assert await cluster.scale(encoders=2, answerers=2) == (2, 2)

    asyncio.run(run())
    for at in range(4):
        check_same(live, f"scaled-{at}", plain)
