"""Calls of one question: tried again where that helps, and errors that arrive as they were raised."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cacheflow_ray import errors
from cacheflow_ray.actors.api import ActorStatus, ClusterStatus, NewStream
from cacheflow_ray.config import AskOptions, StreamSettings
from cacheflow_ray.engine import AnswerResult, LibraryScope
from cacheflow_ray.errors import (
    CacheFlowError,
    ClusterUnavailable,
    DeadlinePassed,
    InvalidConfig,
    LimitExceeded,
    NothingToAnswer,
    PermissionDenied,
    ServiceError,
    SettingsMismatch,
    Unauthenticated,
    UsageError,
)
from cacheflow_ray.service.client import AsyncClient, Tls
from cacheflow_ray.service.client.retry import FIRST_PAUSE_S, LONGEST_PAUSE_S, Patience
from cacheflow_ray.types import TimeRange
from memory_store import errors as store_errors
from memory_store.errors import QuotaExceeded, StoreError, StreamNotFound
from memory_store.records import Retention
from tests.service.cluster_double import MOMENT, USAGE
from tests.service.mortal import MortalCluster, Running, running

AWAY = ClusterUnavailable("the encoder is away", actor="encoder-0")


def against(
    cluster: MortalCluster,
    act: Callable[[AsyncClient, Running], Coroutine[Any, Any, Any]],
    options: Mapping[str, Any] | None = None,
    **client: Any,
) -> Any:
    """What `act` gives, with a client of the service; within 30 s."""

    async def main() -> Any:
        async with running(cluster, **(options or {})) as serving, AsyncClient(serving.address, **client) as made:
            return await asyncio.wait_for(act(made, serving), 30)

    return asyncio.run(main())


def test_streams_are_made_listed_over_pages_changed_and_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(client: AsyncClient, _: Running) -> None:
        for name in ("e", "b", "a", "d", "c"):
            new = NewStream(stream_id=name, settings=StreamSettings(tau=0.3), labels={"at": name})
            made = await client.create_stream(new)
            assert (made.info.stream, made.info.labels) == (name, {"at": name})
        assert [view.info.stream for view in await client.streams()] == ["a", "b", "c", "d", "e"]
        assert [view.info.stream for view in await client.streams(labels={"at": "d"})] == ["d"]

        kept = await client.update_stream("a", retention=Retention(max_blocks=3))
        assert kept.retention == Retention(max_blocks=3) and kept.info.labels == {"at": "a"}
        assert (await client.update_stream("a", labels={})).retention == Retention(max_blocks=3)
        assert not (await client.stream("a")).info.labels

        await client.delete_stream("a")
        with pytest.raises(StreamNotFound):
            await client.stream("a")

    monkeypatch.setattr("cacheflow_ray.service.client.aio._PAGE_SIZE", 2)
    cluster = MortalCluster()
    against(cluster, act)
    assert cluster.streams["b"].new.settings == StreamSettings(tau=0.3)


def test_moments_are_searched_for() -> None:
    async def act(client: AsyncClient, _: Running) -> None:
        for name in ("a", "b"):
            await client.create_stream(NewStream(stream_id=name))
        found = await client.search(
            ["a", "b"], "a boat", top_k=3, time_range=TimeRange(start_s=1.0, end_s=2.0), thumbnails=True
        )
        assert [(moment.stream_id, moment.thumbnail) for moment in found] == [("a", b"jpeg"), ("b", b"jpeg")]
        assert (await client.search("a", "a boat"))[0].evidence == MOMENT

    against(MortalCluster(), act)


def test_the_library_is_searched_and_asked() -> None:
    async def act(client: AsyncClient, _: Running) -> None:
        for name, site in (("a", "north"), ("b", "south"), ("c", "north")):
            await client.create_stream(NewStream(stream_id=name, labels={"site": site}))
        found = await client.search_library("a boat", time_range=TimeRange(end_s=9.0), thumbnails=True)
        assert [(moment.stream_id, moment.thumbnail) for moment in found.moments] == [(s, b"jpeg") for s in "abc"]
        assert found.warnings == ("one was left out",)
        north = await client.search_library("a boat", where=LibraryScope(streams="?", labels={"site": "north"}))
        assert [moment.stream_id for moment in north.moments] == ["a", "c"]
        named = await client.search_library("a boat", where=["c", "b"], top_k=1)
        assert [moment.stream_id for moment in named.moments] == ["c"]

        answer = client.ask_library("what?", where=LibraryScope(labels={"site": "south"}))
        assert ((await answer.read()).text, answer.stream) == ("two red cars", "b")
        with pytest.raises(UsageError, match="session_id: the library is asked about"):
            await client.ask_library("what?", options=AskOptions(session_id="s-1")).read()
        with pytest.raises(NothingToAnswer, match="there are no streams 'x'"):
            await client.search_library("a boat", where=LibraryScope(streams="x"))

    cluster = MortalCluster(warnings=("one was left out",))
    against(cluster, act)
    assert [call.library for call in cluster.asked] == [LibraryScope(labels={"site": "south"}, tenant="")]


def test_the_service_tells_its_state_and_is_scaled() -> None:
    actor = ActorStatus(name="encoder-0", role="encoder", alive=True, pid=7, exposition="frames 3.0\n")
    cluster = MortalCluster(state=ClusterStatus(actors=(actor,), streams=()))

    async def act(client: AsyncClient, _: Running) -> None:
        assert await client.status() == cluster.state
        assert await client.scale(encoders=3) == (3, 1)
        assert await client.health()

    against(cluster, act)


def test_the_key_goes_with_every_call(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text('[tenants.acme]\nkeys = ["s3cret"]\n', encoding="utf-8")

    async def act(_: AsyncClient, serving: Running) -> None:
        async with AsyncClient(serving.address, api_key="s3cret") as client:
            await client.create_stream(NewStream(stream_id="a"))
            assert (await client.ask("a", "what?").read()).text == "two red cars"
            await client.ingest("a", [])
            with pytest.raises(PermissionDenied, match="admin"):
                await client.status()
        async with AsyncClient(serving.address) as stranger:
            assert await stranger.health()
            for refused in (stranger.streams(), stranger.ask("a", "what?").read(), stranger.ingest("a", [])):
                with pytest.raises(Unauthenticated, match="no API key"):
                    await refused

    cluster = MortalCluster()
    against(cluster, act, options={"keys": keys})
    assert list(cluster.streams) == ["acme:a"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_call_is_made_again_while_the_service_is_away(times: int) -> None:
    cluster = MortalCluster(errors=deque([AWAY] * times))
    assert against(cluster, lambda client, _: client.streams()) == []
    assert cluster.num_lists == times + 1


def test_a_server_that_comes_back_is_found_at_once() -> None:
    async def act(client: AsyncClient, serving: Running) -> float:
        await client.streams()
        serving.die_and_rise()
        await asyncio.sleep(0)
        began = time.monotonic()
        await client.streams()
        return time.monotonic() - began

    assert against(MortalCluster(), act) < 3


def test_a_call_is_given_up_when_its_time_is_over_and_says_why() -> None:
    cluster = MortalCluster(errors=deque([AWAY] * 100))
    with pytest.raises(ClusterUnavailable, match="the encoder is away") as raised:
        against(cluster, lambda client, _: client.stream("a"), timeout_s=1.5)
    assert raised.value.ids == {"actor": "encoder-0"} and 1 < cluster.num_tries < 5


def test_where_nobody_listens_the_address_is_named() -> None:
    async def act(client: AsyncClient, serving: Running) -> None:
        await serving.stop()
        await client.streams()

    with pytest.raises(ClusterUnavailable, match=r"no service answers at 127.0.0.1:\d+ .*: is it running\?"):
        against(MortalCluster(), act, timeout_s=0.5)


def test_a_service_that_takes_too_long_is_left() -> None:
    cluster = MortalCluster(delay_s=5.0)
    with pytest.raises(DeadlinePassed):
        against(cluster, lambda client, _: client.streams(), timeout_s=0.2)


def test_a_stream_deleted_by_a_try_whose_answer_was_lost_is_deleted() -> None:
    async def act(client: AsyncClient, _: Running) -> None:
        await client.create_stream(NewStream(stream_id="a"))
        cluster.lost_answers.append(AWAY)
        await client.delete_stream("a")
        with pytest.raises(StreamNotFound):
            await client.delete_stream("a")

    cluster = MortalCluster()
    against(cluster, act)


def every_class(root: type[Exception]) -> list[type[Exception]]:
    return [root, *(found for child in root.__subclasses__() for found in every_class(child))]


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in every_class(CacheFlowError) + every_class(StoreError)
        if kind.__module__ in (errors.__name__, store_errors.__name__)
    ],
    ids=lambda kind: kind.__name__,
)
def test_an_error_keeps_its_class_its_words_and_its_ids(kind: type[Exception]) -> None:
    cluster = MortalCluster(errors=deque([kind("something is wrong with 'a'", stream_id="a", block_idx=3)] * 9))
    with pytest.raises(kind, match="something is wrong with 'a'") as raised:
        against(cluster, lambda client, _: client.stream("a"), timeout_s=0.3)

    assert type(raised.value) is kind and raised.value.ids == {"stream_id": "a", "block_idx": "3"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [UsageError, SettingsMismatch, LimitExceeded, QuotaExceeded, StreamNotFound])
def test_what_waiting_does_not_mend_is_raised_at_once(kind: type[Exception]) -> None:
    cluster = MortalCluster(errors=deque([kind("no")] * 2))
    with pytest.raises(kind):
        against(cluster, lambda client, _: client.stream("a"))
    assert cluster.num_tries == 1


def test_an_answer_is_iterated_and_then_read() -> None:
    async def act(client: AsyncClient, _: Running) -> None:
        await client.create_stream(NewStream(stream_id="a"))
        answer = client.ask("a", "what?", options=AskOptions(top_k=3, max_new_tokens=9), after_seq=7, thumbnails=True)
        with pytest.raises(ServiceError, match="has not come to its end"):
            _ = answer.result
        assert [piece async for piece in answer] == ["two ", "red ", "cars"]
        assert (answer.result.text, answer.result.session_id, answer.result.usage) == ("two red cars", "s-1", USAGE)
        assert (answer.stream, answer.moments[0].evidence) == ("a", MOMENT)
        assert await answer.read() is answer.result

    cluster = MortalCluster()
    against(cluster, act)
    (call,) = cluster.asked
    assert (call.streams, call.question, call.after_seq, call.thumbnails) == (("a",), "what?", 7, True)
    assert call.options == AskOptions(top_k=3, max_new_tokens=9) and call.deadline_s is not None
    assert call.options.model_fields_set == {"top_k", "max_new_tokens"}


def asked(cluster: MortalCluster, **options: Any) -> tuple[list[str], AnswerResult]:
    """The pieces heard, and the answer. `errors` of the cluster are for the question, not for making its stream."""
    errors, cluster.errors = cluster.errors, deque()

    async def act(client: AsyncClient, _: Running) -> tuple[list[str], AnswerResult]:
        await client.create_stream(NewStream(stream_id="a"))
        cluster.errors, cluster.num_tries = errors, 0
        answer = client.ask("a", "what?", **options)
        async for piece in answer:
            heard.append(piece)
        return heard, answer.result

    heard = list[str]()
    try:
        result: tuple[list[str], AnswerResult] = against(cluster, act)
    except Exception as error:
        error.args = (*error.args, heard)
        raise
    return result


def test_a_question_is_asked_again_before_its_first_word() -> None:
    cluster = MortalCluster(errors=deque([AWAY, AWAY]))
    heard, result = asked(cluster)
    assert "".join(heard) == result.text == "two red cars" and cluster.num_tries == 3


def test_a_question_is_not_asked_again_after_its_first_word() -> None:
    cluster = MortalCluster(late_errors=deque([AWAY]))
    with pytest.raises(ClusterUnavailable, match="the encoder is away") as raised:
        asked(cluster)
    assert raised.value.args[-1] == ["two "] and len(cluster.asked) == 1


def test_a_question_is_given_up_when_its_time_is_over() -> None:
    with pytest.raises(ClusterUnavailable):
        asked(MortalCluster(errors=deque([AWAY] * 100)), timeout_s=1.5)


def test_what_a_question_finds_wrong_is_raised() -> None:
    with pytest.raises(NothingToAnswer, match="no video"):
        asked(MortalCluster(errors=deque([NothingToAnswer("no video", stream="a")])))


def test_an_answer_that_is_left_is_ended_at_the_service() -> None:
    async def act(client: AsyncClient, _: Running) -> None:
        await client.create_stream(NewStream(stream_id="a"))
        async with client.ask("a", "what?") as answer:
            async for _piece in answer:
                assert cluster.num_answering == 1
                break
        while cluster.num_answering:
            await asyncio.sleep(0.01)

    cluster = MortalCluster(endless=True, pace_s=0.001)
    against(cluster, act)


def test_an_option_that_no_service_takes_is_refused_here() -> None:
    async def act(client: AsyncClient, _: Running) -> None:
        client.ask("a", "what?", options=AskOptions(merge="rrf"))

    with pytest.raises(UsageError, match="merge: "):
        against(MortalCluster(), act)


def test_pauses_grow_differ_and_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [0.0], list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    async def act() -> None:
        patience = Patience(60.0)
        with pytest.raises(ClusterUnavailable):
            while True:
                await patience.pause(AWAY)

    monkeypatch.setattr("cacheflow_ray.service.client.retry.monotonic", lambda: now[0])
    monkeypatch.setattr("asyncio.sleep", sleep)
    asyncio.run(act())

    assert FIRST_PAUSE_S / 2 <= slept[0] <= FIRST_PAUSE_S and LONGEST_PAUSE_S / 2 <= slept[-1] <= LONGEST_PAUSE_S
    assert all(early < 4 * late and late <= 4 * early for early, late in pairwise(slept))
    assert 50 < now[0] < 60 and len({round(pause / slept[0], 3) % 1 for pause in slept}) > 3


def test_a_certificate_without_its_key_is_refused(tmp_path: Any) -> None:
    with pytest.raises(InvalidConfig, match="go together"):
        Tls(cert=tmp_path / "cert.pem")
