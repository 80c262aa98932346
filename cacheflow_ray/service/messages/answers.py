"""Questions, answers, and moments found by text."""

from __future__ import annotations

from cacheflow_ray.actors.api import Answered, AskCall, Found, Moment, SearchCall
from cacheflow_ray.config import AskOptions
from cacheflow_ray.engine.reports import AnswerResult, Evidence, Usage
from cacheflow_ray.errors import UsageError
from cacheflow_ray.service.messages.fields import read_time_range, read_where, within, write_library, write_time_range
from cacheflow_ray.service.tenants import bare, without_tenant
from cacheflow_ray.service.v1 import answer_pb2, common_pb2, search_pb2

#: Moments of a search where the client does not say, and at most.
MOMENTS = 8
MAX_MOMENTS = 1000

_MAX_SEQ = 2**63 - 1
_SENT_OPTIONS = ("top_k", "window_blocks", "max_new_tokens", "stop_ratio")
_USAGE = (
    "context_tokens",
    "retrieved_blocks",
    "window_blocks",
    "tail_tokens",
    "question_tokens",
    "generated_tokens",
    "fetched_bytes",
)


def read_question(message: answer_pb2.AskRequest, tenant: str = "", *, deadline_s: float | None = None) -> AskCall:
    """`deadline_s`: as in `AskCall`. Raises: UsageError, InvalidConfig: naming the field."""
    streams, library = read_where(message.streams, _library(message), tenant)
    after_seq = message.after_seq if message.HasField("after_seq") else None
    for field, given in (("session_id", message.session_id), ("after_seq", after_seq is not None)):
        if given and len(streams) != 1:
            asked = "the library is" if library else f"{len(streams)} streams are"
            raise UsageError(f"{field}: {asked} asked about; ask about one stream, or leave it out", field=field)
    if after_seq is not None and after_seq > _MAX_SEQ:
        raise UsageError(f"after_seq: {after_seq} is not allowed; allowed: 0 to {_MAX_SEQ}", field="after_seq")
    return AskCall(
        streams=streams,
        library=library,
        question=message.question,
        options=_read_options(message),
        after_seq=after_seq,
        deadline_s=deadline_s,
        thumbnails=message.thumbnails,
    )


def _read_options(message: answer_pb2.AskRequest) -> AskOptions:
    given = {name: getattr(message.options, name) for name in _SENT_OPTIONS if message.options.HasField(name)}
    if message.session_id:
        given["session_id"] = message.session_id
    if message.HasField("time_range"):
        given["time_range"] = read_time_range(message.time_range, "time_range")
    with within("options", beside=("session_id", "time_range")):
        return AskOptions(**given)


def write_question(call: AskCall) -> answer_pb2.AskRequest:
    """The deadline travels with the call, not in it.

    Raises:
        UsageError: an option that cannot be asked of a server is set.
    """
    options = call.options
    _check_sendable(options, {*_SENT_OPTIONS, "session_id", "time_range"})
    request = answer_pb2.AskRequest(
        streams=call.streams,
        library=write_library(call.library),
        question=call.question,
        session_id=options.session_id,
        time_range=None if options.time_range is None else write_time_range(options.time_range),
        after_seq=call.after_seq,
        thumbnails=call.thumbnails,
    )
    for name in options.model_fields_set & set(_SENT_OPTIONS):
        if getattr(options, name) is not None:
            setattr(request.options, name, getattr(options, name))
    return request


def _check_sendable(options: AskOptions, known: set[str]) -> None:
    unsent = sorted(options.model_fields_set - known)
    if unsent:
        raise UsageError(f"{unsent[0]}: a server takes it from its model only; leave it out", field=unsent[0])


def read_answer(message: answer_pb2.Answer) -> Answered:
    """As a server tells it; the stream's id is the name it was asked by."""
    moments = tuple(read_evidence(evidence) for evidence in message.evidence)
    result = AnswerResult(
        text=message.text,
        evidence=tuple(moment.evidence for moment in moments),
        session_id=message.session_id or None,
        usage=Usage(**{name: getattr(message.usage, name) for name in _USAGE}),
        timings=dict(message.timings_ms),
        warnings=tuple(message.warnings),
    )
    return Answered(stream_id=message.stream, result=result, moments=moments)


def write_answer(answered: Answered, tenant: str = "") -> answer_pb2.Answer:
    """The final message of an answer."""
    result = answered.result
    return answer_pb2.Answer(
        text=result.text,
        session_id=result.session_id,
        evidence=[write_evidence(moment, tenant) for moment in answered.moments],
        usage=answer_pb2.Usage(**{name: getattr(result.usage, name) for name in _USAGE}),
        timings_ms=result.timings,
        warnings=[without_tenant(tenant, warning) for warning in result.warnings],
        stream=bare(tenant, answered.stream_id),
    )


def read_evidence(message: common_pb2.Evidence) -> Moment:
    """As a server tells it; kinds newer than this client count as retrieved."""
    evidence = Evidence(
        start_s=message.start_s,
        end_s=message.end_s,
        block_idxs=tuple(message.block_idxs),
        score=message.score if message.HasField("score") else None,
        kind="window" if message.kind == common_pb2.Evidence.KIND_WINDOW else "retrieved",
    )
    return Moment(stream_id=message.stream, evidence=evidence, thumbnail=message.thumbnail)


def write_evidence(moment: Moment, tenant: str = "") -> common_pb2.Evidence:
    """One piece, of an answer or a search."""
    kinds = {"retrieved": common_pb2.Evidence.KIND_RETRIEVED, "window": common_pb2.Evidence.KIND_WINDOW}
    evidence = moment.evidence
    return common_pb2.Evidence(
        stream=bare(tenant, moment.stream_id),
        start_s=evidence.start_s,
        end_s=evidence.end_s,
        block_idxs=evidence.block_idxs,
        score=evidence.score,
        kind=kinds[evidence.kind],
        thumbnail=moment.thumbnail,
    )


def read_search(message: search_pb2.SearchRequest, tenant: str = "") -> SearchCall:
    """Raises: UsageError: naming the field."""
    if not 0 <= message.top_k <= MAX_MOMENTS:
        raise UsageError(
            f"top_k: {message.top_k} is not allowed; allowed: 1 to {MAX_MOMENTS}, or 0 for {MOMENTS}", field="top_k"
        )
    options = AskOptions(top_k=message.top_k or MOMENTS)
    if message.HasField("time_range"):
        options = AskOptions(top_k=options.top_k, time_range=read_time_range(message.time_range, "time_range"))
    streams, library = read_where(message.streams, _library(message), tenant)
    return SearchCall(
        streams=streams,
        library=library,
        text=message.text,
        options=options,
        thumbnails=message.thumbnails,
    )


def write_search(call: SearchCall) -> search_pb2.SearchRequest:
    """Raises: UsageError: an option that cannot be asked of a server is set."""
    options = call.options
    _check_sendable(options, {"top_k", "time_range"})
    return search_pb2.SearchRequest(
        streams=call.streams,
        library=write_library(call.library),
        text=call.text,
        top_k=options.top_k if "top_k" in options.model_fields_set else 0,
        time_range=None if options.time_range is None else write_time_range(options.time_range),
        thumbnails=call.thumbnails,
    )


def _library(message: answer_pb2.AskRequest | search_pb2.SearchRequest) -> common_pb2.LibraryScope | None:
    return message.library if message.HasField("library") else None


def read_found(message: search_pb2.SearchResponse) -> Found:
    """As a server tells it."""
    return Found(moments=tuple(map(read_evidence, message.moments)), warnings=tuple(message.warnings))


def write_found(found: Found, tenant: str = "") -> search_pb2.SearchResponse:
    """What a search found."""
    return search_pb2.SearchResponse(
        moments=[write_evidence(moment, tenant) for moment in found.moments],
        warnings=[without_tenant(tenant, warning) for warning in found.warnings],
    )
