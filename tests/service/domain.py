"""Domain objects of every shape, for hypothesis; ids are of the tenant drawn with them."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from cacheflow_ray.actors.api import (
    ActorStatus,
    Answered,
    AskCall,
    ClusterStatus,
    Found,
    FramePayload,
    LiveStream,
    Moment,
    NewStream,
    PayloadKind,
    SearchCall,
    StreamView,
)
from cacheflow_ray.config import AskOptions, StreamSettings
from cacheflow_ray.engine.position import Overload, Position
from cacheflow_ray.engine.reports import AnswerResult, Evidence, StreamInfo, Usage
from cacheflow_ray.engine.scope import LibraryScope
from cacheflow_ray.service.messages import Granted, Start
from cacheflow_ray.types import TimeRange
from memory_store.records import Retention

TENANTS = ("", "acme", "a-1")

texts = st.text(st.characters(codec="utf-8"), max_size=20)
counts = st.integers(0, 2**63 - 1)
small = st.integers(0, 2**32 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)
labels = st.dictionaries(st.text(st.characters(codec="ascii"), min_size=1, max_size=128), texts, max_size=4)
durations_s = st.one_of(st.none(), st.integers(0, 10**8).map(lambda ms: ms / 1000))


def ids(tenant: str) -> SearchStrategy[str]:
    return names.map(lambda name: f"{tenant}:{name}" if tenant else name)


def some_of(**values: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    """Any of these keys, each with a value of its own."""
    return st.fixed_dictionaries({}, optional=values)


time_ranges = st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)).map(
    lambda ends: TimeRange(start_s=min(ends), end_s=max(ends))
)

settings = some_of(
    fps=st.one_of(st.none(), st.floats(0.001, 1000)),
    tau=st.floats(-1, 2),
    reference=st.sampled_from(["previous", "last_kept"]),
    adaptive=st.booleans(),
    block_size=st.integers(1, 65536),
    window_blocks=st.integers(0, 65536),
    summary=st.sampled_from(["mean", "recurrent8"]),
    pixel_gate=st.one_of(st.none(), st.floats(0.001, 255)),
    kv_codec=st.sampled_from(["native", "fp8", "int8"]),
).map(lambda values: StreamSettings(**values))

retentions = st.builds(
    Retention,
    ttl_s=durations_s,
    max_blocks=st.one_of(st.none(), counts),
    max_bytes=st.one_of(st.none(), counts),
    summary_only_after_s=durations_s,
    pinned=st.lists(time_ranges, max_size=3).map(tuple),
)

positions = st.builds(
    Position,
    next_seq=counts,
    frames=counts,
    tokens_seen=counts,
    tokens_kept=counts,
    duplicates=counts,
    out_of_order=counts,
    blocks=counts,
    tail_tokens=counts,
    shed=st.just(0),
    complete=st.booleans(),
)


@st.composite
def new_streams(draw: st.DrawFn, *, pushed: bool = False) -> NewStream:
    tenant = draw(st.sampled_from(TENANTS))
    return NewStream(
        stream_id=draw(ids(tenant)),
        tenant=tenant,
        settings=draw(st.one_of(st.none(), settings)),
        labels=draw(labels),
        source_uri=None if pushed else draw(st.one_of(st.none(), texts.filter(bool))),
        retention=None if pushed else draw(st.one_of(st.none(), retentions)),
    )


@st.composite
def views(draw: st.DrawFn) -> StreamView:
    """As a server has them: the info's counts may be behind the position's."""
    tenant, model = draw(st.sampled_from(TENANTS)), draw(texts)
    ends = draw(st.one_of(st.none(), st.tuples(finite, finite)))
    info = StreamInfo(
        stream=draw(ids(tenant)),
        model=model,
        fingerprint=draw(texts),
        settings={"model": model, "source_identity": "x"} | draw(settings).model_dump(exclude_none=True),
        labels=draw(labels),
        created_s=draw(st.floats(10**9, 10**10)),
        complete=draw(st.booleans()),
        warning=draw(st.one_of(st.none(), texts.filter(bool))),
        frames=draw(counts),
        tokens_seen=draw(counts),
        tokens_kept=draw(counts),
        blocks=draw(counts),
        tail_tokens=draw(counts),
        num_bytes=draw(counts),
        start_s=ends and ends[0],
        end_s=ends and ends[1],
        grid=(draw(small), draw(small)),
        frames_per_unit=draw(small),
    )
    retention = draw(st.one_of(st.none(), retentions))
    source = draw(st.one_of(st.none(), texts))
    return StreamView(info=info, position=draw(positions), tenant=tenant, retention=retention, source_uri=source)


frames = st.builds(
    FramePayload,
    seq=counts,
    timestamp_s=st.floats(0, allow_nan=False, allow_infinity=False),
    data=st.binary(min_size=1, max_size=50),
)

starts = st.builds(
    Start, new=new_streams(pushed=True), kind=st.sampled_from(PayloadKind), overload=st.sampled_from(Overload)
)

granted = st.builds(Granted, position=positions, credit_frames=small, credit_bytes=counts)


@st.composite
def reaches(draw: st.DrawFn, tenant: str) -> tuple[tuple[str, ...], LibraryScope | None]:
    """Streams by their ids, or a library scope, as a server reads them."""
    if draw(st.booleans()):
        return tuple(draw(st.lists(ids(tenant), min_size=1, max_size=4, unique=True))), None
    globs = st.one_of(st.just("*"), st.from_regex(r"[A-Za-z0-9._*?\[\]!-]{1,128}", fullmatch=True))
    end_s = st.one_of(st.none(), st.integers(0, 2**33).map(float))
    ends = sorted((draw(end_s), draw(end_s)), key=lambda end: end or 0.0)
    recorded = TimeRange(
        start_s=-math.inf if ends[0] is None else ends[0], end_s=math.inf if ends[1] is None else ends[1]
    )
    return (), LibraryScope(
        streams=draw(globs),
        labels=draw(labels),
        tenant=tenant,
        recorded=None if ends == [None, None] else recorded,
    )


@st.composite
def questions(draw: st.DrawFn) -> tuple[str, AskCall]:
    """A tenant, and its question."""
    tenant = draw(st.sampled_from(TENANTS))
    streams, library = draw(reaches(tenant))
    alone = len(streams) == 1
    options = draw(
        some_of(
            top_k=st.integers(0, 4096),
            window_blocks=st.integers(0, 65536),
            max_new_tokens=st.integers(1, 8192),
            stop_ratio=st.floats(0, 1),
            time_range=time_ranges,
            **({"session_id": st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True)} if alone else {}),
        )
    )
    return tenant, AskCall(
        streams=streams,
        library=library,
        question=draw(texts),
        options=AskOptions(**options),
        after_seq=draw(st.one_of(st.none(), counts)) if alone else None,
        deadline_s=draw(st.one_of(st.none(), finite)),
        thumbnails=draw(st.booleans()),
    )


@st.composite
def searches(draw: st.DrawFn) -> tuple[str, SearchCall]:
    """A tenant, and its search."""
    tenant = draw(st.sampled_from(TENANTS))
    options = {"top_k": draw(st.integers(1, 1000))} | draw(some_of(time_range=time_ranges))
    streams, library = draw(reaches(tenant))
    return tenant, SearchCall(
        streams=streams,
        library=library,
        text=draw(texts),
        options=AskOptions(**options),
        thumbnails=draw(st.booleans()),
    )


evidence = st.builds(
    Evidence,
    start_s=finite,
    end_s=finite,
    block_idxs=st.lists(small, max_size=4).map(tuple),
    score=st.one_of(st.none(), finite),
    kind=st.sampled_from(["retrieved", "window"]),
)


@st.composite
def finds(draw: st.DrawFn) -> tuple[str, Found]:
    """A tenant, and what a search of it found."""
    tenant = draw(st.sampled_from(TENANTS))
    moment = st.builds(Moment, stream_id=ids(tenant), evidence=evidence, thumbnail=st.binary(max_size=9))
    moments = tuple(draw(st.lists(moment, max_size=4)))
    return tenant, Found(moments=moments, warnings=tuple(draw(st.lists(names, max_size=2))))


@st.composite
def answers(draw: st.DrawFn) -> tuple[str, Answered]:
    """A tenant, and an answer to it."""
    tenant = draw(st.sampled_from(TENANTS))
    moment = st.builds(Moment, stream_id=ids(tenant), evidence=evidence, thumbnail=st.binary(max_size=9))
    moments = draw(st.lists(moment, max_size=4))
    result = AnswerResult(
        text=draw(texts),
        evidence=tuple(moment.evidence for moment in moments),
        session_id=draw(st.one_of(st.none(), names)),
        usage=draw(
            st.builds(
                Usage,
                context_tokens=counts,
                retrieved_blocks=small,
                window_blocks=small,
                tail_tokens=small,
                question_tokens=small,
                generated_tokens=small,
                fetched_bytes=counts,
            )
        ),
        timings=draw(st.dictionaries(names, finite, max_size=4)),
        warnings=tuple(draw(st.lists(texts, max_size=3))),
    )
    return tenant, Answered(stream_id=draw(ids(tenant)), result=result, moments=tuple(moments))


actors = st.builds(
    ActorStatus,
    name=texts,
    role=st.sampled_from(["encoder", "store", "answerer", "gateway"]),
    alive=st.booleans(),
    pid=small,
    resident_bytes=counts,
    node=texts,
    exposition=st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True), finite, max_size=4).map(
        lambda metrics: "".join(f"{name} {value!r}\n" for name, value in sorted(metrics.items()))
    ),
)

statuses = st.builds(
    ClusterStatus,
    actors=st.lists(actors, max_size=3).map(tuple),
    streams=st.lists(
        st.builds(
            LiveStream,
            stream_id=st.sampled_from(TENANTS).flatmap(ids),
            encoder=texts,
            position=st.builds(Position, next_seq=counts, frames=counts, shed=counts),
            queued=counts,
        ),
        max_size=3,
    ).map(tuple),
)
