"""Bad requests, each with the field that is told to be at fault."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from cacheflow_ray.actors.api import PayloadKind
from cacheflow_ray.errors import UsageError
from cacheflow_ray.service import messages
from cacheflow_ray.service.status import status_of
from cacheflow_ray.service.tenants import bare, qualified
from cacheflow_ray.service.v1 import admin_pb2, answer_pb2, common_pb2, ingest_pb2, search_pb2, stream_pb2
from memory_store.records import STREAM_ID
from tests.service import domain

Range = common_pb2.TimeRange
NAN = Range(start_s=math.nan)
BACKWARDS = Range(start_s=2, end_s=1)


def new(**fields: Any) -> tuple[Callable[..., Any], Message]:
    return messages.read_new_stream, stream_pb2.Stream(**({"name": "door"} | fields))


def settings(**fields: Any) -> tuple[Callable[..., Any], Message]:
    return new(settings=stream_pb2.StreamSettings(**fields))


def retention(**fields: Any) -> tuple[Callable[..., Any], Message]:
    return new(retention=stream_pb2.Retention(**fields))


def start(**fields: Any) -> tuple[Callable[..., Any], Message]:
    return messages.read_start, ingest_pb2.IngestStart(**({"stream": "door"} | fields))


def frame(kind: PayloadKind = PayloadKind.IMAGE, **fields: Any) -> tuple[Callable[..., Any], Message]:
    return lambda message: messages.read_frame(message, kind), ingest_pb2.Frame(**({"data": b"x"} | fields))


def ask(**fields: Any) -> tuple[Callable[..., Any], Message]:
    return messages.read_question, answer_pb2.AskRequest(**({"streams": ["door"]} | fields))


def options(**fields: Any) -> tuple[Callable[..., Any], Message]:
    return ask(options=answer_pb2.AskOptions(**fields))


def search(**fields: Any) -> tuple[Callable[..., Any], Message]:
    return messages.read_search, search_pb2.SearchRequest(**({"streams": ["door"]} | fields))


def page(**fields: Any) -> tuple[Callable[..., Any], Message]:
    return messages.read_page, stream_pb2.ListStreamsRequest(**fields)


def update(paths: list[str], **fields: Any) -> tuple[Callable[..., Any], Message]:
    request = stream_pb2.UpdateStreamRequest(stream=stream_pb2.Stream(**({"name": "door"} | fields)))
    request.update_mask.paths.extend(paths)
    return messages.read_changes, request


def scale(**fields: Any) -> tuple[Callable[..., Any], Message]:
    return messages.read_scale, admin_pb2.ScaleRequest(**fields)


MANY = {f"label-{i}": "" for i in range(65)}

REFUSED = [
    (new(name=""), "stream.name"),
    (new(name="acme:door"), "stream.name"),
    (new(name="x" * 129), "stream.name"),
    (new(name="door\n"), "stream.name"),
    (new(labels={"": "x"}), "stream.labels"),
    (new(labels={"x" * 129: ""}), "stream.labels"),
    (new(labels={"x": "ж" * 513}), "stream.labels"),
    (new(labels=MANY), "stream.labels"),
    (new(source=stream_pb2.Source()), "stream.source.uri"),
    (settings(fps=0), "stream.settings.fps"),
    (settings(fps=math.nan), "stream.settings.fps"),
    (settings(tau=math.inf), "stream.settings.tau"),
    (settings(tau=3), "stream.settings.tau"),
    (settings(block_size=0), "stream.settings.block_size"),
    (settings(window_blocks=65537), "stream.settings.window_blocks"),
    (settings(summary=""), "stream.settings.summary"),
    (settings(pixel_gate=-1), "stream.settings.pixel_gate"),
    (settings(pixel_gate=math.nan), "stream.settings.pixel_gate"),
    (settings(reference=9), "stream.settings.reference"),
    (settings(kv_codec=-1), "stream.settings.kv_codec"),
    (retention(ttl={"seconds": -1}), "stream.retention.ttl"),
    (retention(ttl={"nanos": -1}), "stream.retention.ttl"),
    (retention(ttl={"seconds": 2**62}), "stream.retention.ttl"),
    (retention(summary_only_after={"nanos": 10**9}), "stream.retention.summary_only_after"),
    (retention(pinned=[Range(), NAN]), "stream.retention.pinned"),
    (start(stream=""), "stream"),
    (start(payload=9), "payload"),
    (start(overload=9), "overload"),
    (start(labels={"": ""}), "labels"),
    (start(settings=stream_pb2.StreamSettings(tau=3)), "settings.tau"),
    (frame(seq=2**63), "frame.seq"),
    (frame(timestamp_s=math.nan), "frame.timestamp_s"),
    (frame(timestamp_s=math.inf), "frame.timestamp_s"),
    (frame(timestamp_s=-0.1), "frame.timestamp_s"),
    (frame(data=b""), "frame.data"),
    (frame(PayloadKind.RGB, data=b"xxxx", width=1, height=1), "frame.data"),
    (frame(PayloadKind.RGB, data=b"xxx"), "frame.data"),
    (ask(streams=[]), "streams"),
    (ask(streams=["door", ""]), "streams"),
    (ask(streams=[f"cam-{i}" for i in range(65)]), "streams"),
    (ask(streams=["a", "b"], session_id="s"), "session_id"),
    (ask(streams=["a", "b"], after_seq=0), "after_seq"),
    (ask(after_seq=2**63), "after_seq"),
    (ask(session_id="no spaces"), "session_id"),
    (ask(time_range=NAN), "time_range"),
    (ask(time_range=BACKWARDS), "time_range"),
    (options(top_k=4097), "options.top_k"),
    (options(window_blocks=65537), "options.window_blocks"),
    (options(max_new_tokens=0), "options.max_new_tokens"),
    (options(stop_ratio=math.nan), "options.stop_ratio"),
    (search(streams=[]), "streams"),
    (search(top_k=-1), "top_k"),
    (search(top_k=1001), "top_k"),
    (search(time_range=BACKWARDS), "time_range"),
    (page(page_size=-1), "page_size"),
    (page(page_token="%"), "page_token"),
    (page(page_token="YWNtZTpkb29y"), "page_token"),  # acme:door
    (page(page_token="ж"), "page_token"),
    (page(labels=MANY), "labels"),
    (update(["settings"]), "update_mask"),
    (update(["retention.ttl"]), "update_mask"),
    (update(["labels"], name=""), "stream.name"),
    (update(["labels"], labels={"": ""}), "stream.labels"),
    (update([], retention=stream_pb2.Retention(pinned=[NAN])), "stream.retention.pinned"),
    (scale(encoders=0), "encoders"),
    (scale(answerers=1025), "answerers"),
]


@pytest.mark.parametrize(("request_", "field"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_the_field_is_named(request_: tuple[Callable[..., Any], Message], field: str) -> None:
    read, message = request_

    with pytest.raises(UsageError) as caught:
        read(message)

    assert str(caught.value).startswith(f"{field}: ") and "\n" not in str(caught.value)
    status = status_of(caught.value)
    assert status.code is StatusCode.INVALID_ARGUMENT
    assert violated(status) == [field]


AT_THE_LIMIT = [
    new(name="x" * 128),
    new(labels={f"label-{i}": "" for i in range(64)}),
    new(labels={"x" * 128: "ж" * 512}),
    retention(ttl={"seconds": 0}, summary_only_after={"seconds": 315_576_000_000, "nanos": 10**9 - 1}),
    frame(seq=2**63 - 1, timestamp_s=0),
    ask(streams=[f"cam-{i}" for i in range(64)]),
    ask(after_seq=2**63 - 1),
    ask(time_range=Range(start_s=1, end_s=1)),
    search(top_k=1000),
    page(page_size=2**31 - 1),
    scale(encoders=1, answerers=1024),
    scale(),
]


@pytest.mark.parametrize("request_", AT_THE_LIMIT)
def test_what_is_allowed_just_so_is_read(request_: tuple[Callable[..., Any], Message]) -> None:
    read, message = request_

    read(message)


def violated(status: Any) -> list[str]:
    """Fields of the BadRequest in the trailing metadata."""
    fields = []
    for packed in Status.FromString(status.trailing_metadata[0][1]).details:
        bad = BadRequest()
        if packed.Unpack(bad):
            fields += [violation.field for violation in bad.field_violations]
    return fields


READERS: list[tuple[Callable[..., Any], type[Message]]] = [
    (messages.read_new_stream, stream_pb2.Stream),
    (messages.read_start, ingest_pb2.IngestStart),
    (lambda message: messages.read_frame(message, PayloadKind.RGB), ingest_pb2.Frame),
    (messages.read_question, answer_pb2.AskRequest),
    (messages.read_search, search_pb2.SearchRequest),
    (messages.read_page, stream_pb2.ListStreamsRequest),
    (messages.read_changes, stream_pb2.UpdateStreamRequest),
    (messages.read_scale, admin_pb2.ScaleRequest),
]


@pytest.mark.parametrize(("read", "kind"), READERS, ids=[kind.__name__ for _, kind in READERS])
@given(data=st.data())
def test_whatever_comes_is_read_or_refused(read: Callable[..., Any], kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(anything(kind))
    try:
        read(messages.parse(kind, message.SerializeToString()))
    except UsageError as error:
        assert error.ids.get("field") or error.ids.get("key")


SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.one_of(domain.texts, domain.names),
    "bytes": st.binary(max_size=12),
    "bool": st.booleans(),
    "double": st.floats(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "uint64": st.integers(0, 2**64 - 1),
}


@st.composite
def anything(draw: st.DrawFn, kind: type[Message]) -> Message:
    """A message whose fields hold anything their types allow, numbers of enums included that nothing is called by."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if draw(st.booleans()):
            fill(draw, message, field)
    return message


def fill(draw: st.DrawFn, message: Message, field: Any) -> None:
    held = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        held.update(draw(st.dictionaries(domain.texts, domain.texts, max_size=2)))
    elif field.message_type is not None:
        for place in [held.add() for _ in range(draw(st.integers(0, 2)))] if field.is_repeated else [held]:
            place.CopyFrom(draw(anything(type(place))))
            if not field.is_repeated:
                place.SetInParent()
    else:
        values = st.integers(-2, 9) if field.enum_type is not None else SCALARS[NAMES[field.type]]
        if field.is_repeated:
            held.extend(draw(st.lists(values, max_size=3)))
        else:
            setattr(message, field.name, draw(values))


#: Types of fields as descriptors number them.
NAMES = {1: "double", 3: "int64", 4: "uint64", 5: "int32", 8: "bool", 9: "string", 12: "bytes", 13: "uint32"}


@pytest.mark.parametrize("tenant", ["acme", "a-1", "x" * 63])
@given(name=domain.names)
def test_a_name_becomes_an_id_of_its_tenant_and_a_name_again(tenant: str, name: str) -> None:
    stream_id = qualified(tenant, name)

    assert STREAM_ID.fullmatch(stream_id) and stream_id == f"{tenant}:{name}"
    assert bare(tenant, stream_id) == name
    assert qualified("", name) == name == bare("", name)
