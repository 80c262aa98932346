"""Whatever the domain holds goes over the wire and back unchanged; a bad request is refused by the name of a field."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from cacheflow_ray.actors.api import (
    ActorStatus,
    Answered,
    AskCall,
    ClusterStatus,
    Found,
    FramePayload,
    NewStream,
    SearchCall,
    StreamView,
)
from cacheflow_ray.actors.api import PayloadKind as Kind
from cacheflow_ray.config import AskOptions, StreamSettings
from cacheflow_ray.engine.position import Overload
from cacheflow_ray.engine.scope import LibraryScope
from cacheflow_ray.errors import UsageError
from cacheflow_ray.service import messages
from cacheflow_ray.service.messages import Changes, Granted, Page, Start
from cacheflow_ray.service.tenants import bare
from cacheflow_ray.service.v1 import answer_pb2, common_pb2, ingest_pb2, search_pb2, stream_pb2
from memory_store.records import Retention
from tests.service import domain

M = TypeVar("M", bound=Message)
Call = TypeVar("Call", AskCall, SearchCall)


def sent(message: M) -> M:
    """As the other side parses it."""
    return messages.parse(type(message), message.SerializeToString())


def as_set(settings: StreamSettings | AskOptions | None) -> dict[str, Any] | None:
    """What is set, which two equal sections may differ in."""
    return None if settings is None else {name: getattr(settings, name) for name in settings.model_fields_set}


def told(settings: StreamSettings | None) -> dict[str, Any] | None:
    """What is set and not left to the model."""
    values = as_set(settings)
    left = ("block_size", "window_blocks", "summary")
    return values and {name: value for name, value in values.items() if value is not None or name not in left}


@given(domain.new_streams())
def test_a_new_stream(new: NewStream) -> None:
    got = messages.read_new_stream(sent(messages.write_new_stream(new)), new.tenant)

    assert got == new and told(got.settings) == told(new.settings)


@given(domain.views())
def test_a_stream_as_it_is(view: StreamView) -> None:
    got = messages.read_stream(sent(messages.write_stream(view)))

    position, info = view.position, view.info
    complete = info.complete or position.complete
    settings = {"kv_codec": "native"} | dict(info.settings)
    del settings["source_identity"]
    assert got.position == dataclasses.replace(position, complete=complete)
    assert got.info == dataclasses.replace(
        info,
        stream=bare(view.tenant, info.stream),
        settings=settings,
        frames=position.frames,
        tokens_seen=position.tokens_seen,
        tokens_kept=position.tokens_kept,
        blocks=position.blocks,
        tail_tokens=position.tail_tokens,
        complete=complete,
    )
    assert (got.tenant, got.retention, got.source_uri) == ("", view.retention, view.source_uri)


@pytest.mark.parametrize("name", ["fps", "pixel_gate"])
def test_a_stored_setting_that_is_none(name: str) -> None:
    """Every frame is taken, or every one is seen: not the same as not known."""
    message = stream_pb2.Stream()
    message.settings.CopyFrom(messages.write_new_stream(new(settings=StreamSettings(**{name: None}))).settings)

    assert messages.read_stream(sent(message)).info.settings[name] is None
    assert as_set(messages.read_new_stream(named(message)).settings) == {name: None}


def new(**values: Any) -> NewStream:
    return NewStream(stream_id="door", **values)


def named(message: stream_pb2.Stream) -> stream_pb2.Stream:
    message.name = "door"
    return message


def test_a_stream_of_a_newer_server_is_read() -> None:
    message = stream_pb2.Stream(name="door")
    message.settings.kv_codec = 77  # type: ignore[assignment]
    message.settings.tau = 0.5

    assert messages.read_stream(sent(message)).info.settings == {"model": "", "tau": 0.5}


@given(domain.starts)
def test_a_start(start: Start) -> None:
    got = messages.read_start(sent(messages.write_start(start)), start.new.tenant)

    assert got == start and told(got.new.settings) == told(start.new.settings)


def test_a_start_that_says_only_the_name() -> None:
    start = messages.read_start(ingest_pb2.IngestStart(stream="door"), "acme")

    assert start == Start(new=NewStream(stream_id="acme:door", tenant="acme"), kind=Kind.IMAGE, overload=Overload.BLOCK)


@given(domain.frames)
def test_an_encoded_frame(frame: FramePayload) -> None:
    assert messages.read_frame(sent(messages.write_frame(frame)), Kind.IMAGE) == frame


@given(st.integers(1, 8), st.integers(1, 8))
def test_a_raw_frame(width: int, height: int) -> None:
    frame = FramePayload(seq=3, timestamp_s=1.5, data=bytes(3 * width * height), width=width, height=height)

    assert messages.read_frame(sent(messages.write_frame(frame)), Kind.RGB) == frame


@given(domain.granted)
def test_credits(grant: Granted) -> None:
    started = messages.read_started(sent(messages.write_started(grant)))
    ack = messages.read_ack(sent(messages.write_ack(grant)))

    assert (started.position.next_seq, started.position.complete) == (grant.position.next_seq, grant.position.complete)
    assert (started.credit_frames, started.credit_bytes) == (grant.credit_frames, grant.credit_bytes)
    assert ack == dataclasses.replace(grant, position=dataclasses.replace(grant.position, complete=False))


@given(st.integers(0, 2**40))
def test_an_ack_tells_what_was_shed(shed: int) -> None:
    position = dataclasses.replace(messages.read_ack(ingest_pb2.IngestAck()).position, shed=shed, next_seq=7)
    message = messages.write_ack(Granted(position=position, credit_frames=1, credit_bytes=2))

    assert message.next_seq == 7 and messages.read_ack(sent(message)).position == position


def as_sent(call: Call, tenant: str) -> Call:
    """As a client has it, who knows bare names and no tenant."""
    library = call.library and dataclasses.replace(call.library, tenant=None)
    return dataclasses.replace(call, streams=tuple(bare(tenant, name) for name in call.streams), library=library)


@given(domain.questions())
def test_a_question(asked: tuple[str, AskCall]) -> None:
    tenant, call = asked
    bare_call = as_sent(call, tenant)

    got = messages.read_question(sent(messages.write_question(bare_call)), tenant, deadline_s=call.deadline_s)

    assert got == call and as_set(got.options) == as_set(call.options)


@given(domain.searches())
def test_a_search(asked: tuple[str, SearchCall]) -> None:
    tenant, call = asked
    bare_call = as_sent(call, tenant)

    got = messages.read_search(sent(messages.write_search(bare_call)), tenant)

    assert got == call and as_set(got.options) == as_set(call.options)


@given(domain.finds())
def test_what_was_found(find: tuple[str, Found]) -> None:
    tenant, found = find

    got = messages.read_found(sent(messages.write_found(found, tenant)))

    moments = tuple(dataclasses.replace(m, stream_id=bare(tenant, m.stream_id)) for m in found.moments)
    assert got == Found(moments=moments, warnings=found.warnings)


def test_warnings_tell_bare_names() -> None:
    found = Found(moments=(), warnings=("left out 1 stream written with another model: acme:door",))

    assert list(messages.write_found(found, "acme").warnings) == ["left out 1 stream written with another model: door"]


@pytest.mark.parametrize("kind", [answer_pb2.AskRequest, search_pb2.SearchRequest])
@pytest.mark.parametrize(
    ("field", "streams", "library"),
    [
        ("streams", [], None),
        ("library", ["door"], {}),
        ("library.stream_glob", [], {"stream_glob": "acme:*"}),
        ("library.stream_glob", [], {"stream_glob": "a/b"}),
        ("library.stream_glob", [], {"stream_glob": "x" * 129}),
        ("library.labels", [], {"labels": {"": "x"}}),
        ("library.recorded_from", [], {"recorded_from": Timestamp(seconds=1 << 40)}),
        ("library.recorded_to", [], {"recorded_from": Timestamp(seconds=9), "recorded_to": Timestamp(seconds=8)}),
        ("library.labels", [], {"labels": {str(at): "x" for at in range(65)}}),
    ],
)
def test_a_reach_that_makes_no_sense_is_told_by_its_field(
    kind: Any, field: str, streams: list[str], library: dict[str, Any] | None
) -> None:
    request = kind(streams=streams, library=None if library is None else common_pb2.LibraryScope(**library))
    read: Any = messages.read_question if kind is answer_pb2.AskRequest else messages.read_search

    with pytest.raises(UsageError, match=f"^{field}: ") as raised:
        read(request, "acme")

    assert raised.value.ids == {"field": field}


@pytest.mark.parametrize("given", [{"session_id": "s-1"}, {"after_seq": 3}])
def test_what_belongs_to_one_stream_is_not_asked_of_a_library(given: dict[str, Any]) -> None:
    (field,) = given
    request = answer_pb2.AskRequest(question="?", library=common_pb2.LibraryScope(), **given)

    with pytest.raises(UsageError, match=f"^{field}: the library is asked about"):
        messages.read_question(request)


def test_a_client_does_not_say_whose_library_it_asks() -> None:
    call = SearchCall(streams=(), library=LibraryScope(tenant="acme"), text="?", options=AskOptions())

    with pytest.raises(UsageError, match=r"^library\.tenant: "):
        messages.write_search(call)


def test_a_search_that_does_not_say_how_many() -> None:
    call = SearchCall(streams=("door",), text="a dog", options=AskOptions())

    message = messages.write_search(call)

    assert message.top_k == 0 and as_set(messages.read_search(message).options) == {"top_k": 8}


def test_a_stream_named_twice_is_asked_once() -> None:
    assert messages.read_question(answer_pb2.AskRequest(streams=["b", "a", "b"])).streams == ("b", "a")


@given(domain.answers())
def test_an_answer(answer: tuple[str, Answered]) -> None:
    tenant, answered = answer

    got = messages.read_answer(sent(messages.write_answer(answered, tenant)))

    moments = tuple(dataclasses.replace(m, stream_id=bare(tenant, m.stream_id)) for m in answered.moments)
    assert got == dataclasses.replace(answered, stream_id=bare(tenant, answered.stream_id), moments=moments)


@given(domain.statuses)
def test_a_status(status: ClusterStatus) -> None:
    assert messages.read_status(sent(messages.write_status(status))) == status


def test_metrics_are_the_samples_without_labels() -> None:
    exposition = """# HELP frames_total Frames.
# TYPE frames_total counter
frames_total 12.0
# TYPE wait_seconds histogram
wait_seconds_bucket{le="+Inf"} 3.0
wait_seconds_count 3.0
wait_seconds_sum 0.5
"""
    actor = ActorStatus(name="encoder-0", role="encoder", alive=True, exposition=exposition)
    message = messages.write_status(ClusterStatus(actors=(actor,), streams=())).actors[0]

    assert message.metrics == {"frames_total": 12.0, "wait_seconds_count": 3.0, "wait_seconds_sum": 0.5}


def test_a_page_goes_on_after_the_last() -> None:
    view = messages.read_stream(stream_pb2.Stream(name="door"))
    view = dataclasses.replace(view, tenant="acme", info=dataclasses.replace(view.info, stream="acme:door"))
    request = stream_pb2.ListStreamsRequest(page_token=messages.write_page_token(view), labels={"floor": "2"})

    assert "acme" not in request.page_token
    assert messages.read_page(request, "acme") == Page(after="acme:door", limit=100, labels={"floor": "2"})
    assert messages.read_page(stream_pb2.ListStreamsRequest(page_size=9999)) == Page(after="", limit=1000, labels={})


@given(
    st.builds(
        Changes,
        stream_id=domain.names,
        labels=st.one_of(st.none(), domain.labels),
        retention=st.one_of(st.none(), domain.retentions),
    )
)
def test_changes(changes: Changes) -> None:
    got = messages.read_changes(sent(messages.write_changes(changes)), "acme")

    assert got == dataclasses.replace(changes, stream_id=f"acme:{changes.stream_id}")


@pytest.mark.parametrize(
    ("paths", "labels", "keeps", "expected"),
    [
        ([], {}, False, (None, None)),
        ([], {"a": "b"}, False, ({"a": "b"}, None)),
        ([], {}, True, (None, Retention(max_blocks=3))),
        (["labels"], {}, True, ({}, None)),
        (["retention"], {"a": "b"}, False, (None, Retention())),
        (["*"], {"a": "b"}, True, ({"a": "b"}, Retention(max_blocks=3))),
    ],
)
def test_what_the_mask_names_changes(paths: list[str], labels: dict[str, str], keeps: bool, expected: Any) -> None:
    request = stream_pb2.UpdateStreamRequest(stream=stream_pb2.Stream(name="door", labels=labels))
    request.update_mask.paths.extend(paths)
    if keeps:
        request.stream.retention.max_blocks = 3

    changes = messages.read_changes(request)

    assert (changes.labels, changes.retention) == expected


def test_a_retention_that_never_ends_is_absent() -> None:
    retention = Retention(ttl_s=math.inf, summary_only_after_s=0.0)

    message = messages.write_new_stream(new(retention=retention)).retention

    assert not message.HasField("ttl") and message.HasField("summary_only_after")


@pytest.mark.parametrize("options", [AskOptions(merge="rrf"), AskOptions(candidates=9), AskOptions(ranking="votes")])
def test_an_option_that_cannot_be_asked_of_a_server_is_not_swallowed(options: AskOptions) -> None:
    (name,) = options.model_fields_set
    with pytest.raises(UsageError, match=f"^{name}: "):
        messages.write_question(AskCall(streams=("door",), question="?", options=options))
    with pytest.raises(UsageError, match=f"^{name}: "):
        messages.write_search(SearchCall(streams=("door",), text="?", options=options))


@pytest.mark.parametrize("kind", [answer_pb2.AskRequest, search_pb2.SearchRequest, stream_pb2.Stream])
def test_bytes_that_are_no_message(kind: type[Message]) -> None:
    with pytest.raises(UsageError, match=f"the request is no {kind.DESCRIPTOR.full_name}: "):
        messages.parse(kind, b"\xff\xff\xff")
