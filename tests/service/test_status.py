"""Every error ends a call with a status of its own and comes back as itself; nothing else is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import StatusCode, aio
from grpc_status import rpc_status

from cacheflow_ray import errors
from cacheflow_ray.errors import CacheFlowError, LimitExceeded, ServiceError
from cacheflow_ray.service.details import RETRY_S
from cacheflow_ray.service.status import CODES, code_of, error_of, reason_of, retry_after_s, status_of
from memory_store import errors as store
from memory_store.errors import StoreError

Error = CacheFlowError | StoreError


def tree(root: type[Error]) -> Iterator[type[Error]]:
    """The class and all below it that its module defines."""
    yield root
    for cls in root.__subclasses__():
        if cls.__module__ == root.__module__:
            yield from tree(cls)


CLASSES = [*tree(CacheFlowError), *tree(StoreError)]


async def _call(status: grpc.Status, use: Callable[[str], Awaitable[grpc.RpcError]]) -> grpc.RpcError:
    """Serve one method that ends with `status`, and let `use` call it at this address."""

    async def fail(request: bytes, context: aio.ServicerContext[bytes, bytes]) -> None:
        await context.abort(status.code, status.details, status.trailing_metadata)

    server = aio.server()
    handler = grpc.unary_unary_rpc_method_handler(fail)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.T", {"Fail": handler})])
    port = server.add_insecure_port("localhost:0")
    await server.start()
    try:
        return await use(f"localhost:{port}")
    finally:
        await server.stop(None)


async def _aio_client(address: str) -> grpc.RpcError:
    async with aio.insecure_channel(address) as channel:
        try:
            await channel.unary_unary("/t.T/Fail")(b"")
        except aio.AioRpcError as error:
            return error
    raise AssertionError("the call went through")


def _sync_client(address: str) -> grpc.RpcError:
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary("/t.T/Fail")(b"")
        except grpc.RpcError as error:
            return error
    raise AssertionError("the call went through")


def over_the_wire(error: BaseException, *, tenant: str = "", request_id: str = "") -> grpc.RpcError:
    return asyncio.run(_call(status_of(error, tenant=tenant, request_id=request_id), _aio_client))


def details(error: grpc.RpcError) -> dict[str, object]:
    """The google.rpc details by the name of their kind."""
    found = {}
    for packed in rpc_status.from_call(error).details:
        kind = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])
        found[packed.TypeName().rpartition(".")[2]] = kind.FromString(packed.value)
    return found


def test_every_class_of_both_trees_has_a_code() -> None:
    assert [cls.__name__ for cls in CLASSES if cls not in CODES] == []
    assert set(CODES) == set(CLASSES)


def test_no_two_classes_have_the_same_reason() -> None:
    assert len({reason_of(cls) for cls in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_comes_back_as_itself(cls: type[Error]) -> None:
    error = cls("stream 'door' – nothing of it", stream_id="door", block_idx=7, none=None, fields=("a", "b"))

    got = over_the_wire(error, request_id="r1")
    back = error_of(got)

    assert got.code() is CODES[cls] is code_of(error)
    assert type(back) is cls and str(back) == str(error)
    assert back.ids == {"stream_id": "door", "block_idx": "7", "fields": "a,b"}
    assert retry_after_s(got) == RETRY_S.get(cls)
    assert details(got)["ErrorInfo"].domain == "cacheflow"
    assert details(got)["RequestInfo"].request_id == "r1"


def test_a_blocking_client_reads_the_same() -> None:
    async def call(address: str) -> grpc.RpcError:
        return await asyncio.to_thread(_sync_client, address)

    back = error_of(asyncio.run(_call(status_of(store.EpochFenced("moved on", stream_id="door")), call)))

    assert type(back) is store.EpochFenced and back.ids == {"stream_id": "door"}


@pytest.mark.parametrize(
    "cls",
    [cls for cls in CLASSES if issubclass(cls, errors.UsageError | errors.MediaError | store.InvalidRecord)],
)
def test_bad_input_is_never_the_services_fault(cls: type[Error]) -> None:
    assert CODES[cls] in (StatusCode.INVALID_ARGUMENT, StatusCode.FAILED_PRECONDITION, StatusCode.NOT_FOUND)


def test_only_the_roots_that_say_nothing_are_internal() -> None:
    roots = [cls for cls in CLASSES if CODES[cls] is StatusCode.INTERNAL]

    assert roots == [CacheFlowError, ServiceError, StoreError]


def test_what_nobody_thought_of_tells_the_requests_id_and_no_more() -> None:
    got = over_the_wire(KeyError("/srv/secret"), request_id="r-42")

    assert got.code() is StatusCode.INTERNAL
    assert "r-42" in got.details() and "secret" not in str(rpc_status.from_call(got))
    assert type(error_of(got)) is ServiceError and "r-42" in str(error_of(got))


def test_a_subclass_elsewhere_is_told_as_the_class_the_table_has() -> None:
    class ShardLost(store.StoreUnavailable):
        pass

    got = over_the_wire(ShardLost("shard 3 is away"))

    assert got.code() is StatusCode.UNAVAILABLE and type(error_of(got)) is store.StoreUnavailable
    assert retry_after_s(got) == RETRY_S[store.StoreUnavailable]


def test_bad_fields_are_named() -> None:
    for error, field in (
        (errors.InvalidConfig("tau: 7 is not allowed", key="tau"), "tau"),
        (errors.UsageError("page_size: -1 is not allowed", field="page_size"), "page_size"),
        (store.InvalidRecord("time range ends before it starts"), ""),
    ):
        (violation,) = details(over_the_wire(error))["BadRequest"].field_violations
        assert (violation.field, violation.description) == (field, str(error))


def test_settings_that_differ_are_named() -> None:
    got = details(over_the_wire(errors.SettingsMismatch("other settings", settings=("tau", "fps"))))

    assert [violation.field for violation in got["BadRequest"].field_violations] == ["settings.tau", "settings.fps"]


def test_resources_and_limits_are_named() -> None:
    missing = details(over_the_wire(store.StreamNotFound("none", stream_id="acme:door"), tenant="acme"))
    full = details(over_the_wire(store.QuotaExceeded("full"), tenant="acme"))
    many = details(over_the_wire(LimitExceeded("too many", limit="questions", value=8)))

    resource = missing["ResourceInfo"]
    assert (resource.resource_type, resource.resource_name) == ("cacheflow.v1.Stream", "door")
    assert [violation.subject for violation in full["QuotaFailure"].violations] == ["tenant:acme"]
    assert [violation.subject for violation in many["QuotaFailure"].violations] == ["limit:questions"]


def test_a_tenant_reads_the_names_it_gave() -> None:
    error = store.StreamExists("stream 'acme:door' exists beside 'big-acme:door': acme: no", stream_id="acme:door")

    back = error_of(over_the_wire(error, tenant="acme"))

    assert str(back) == "stream 'door' exists beside 'big-acme:door': acme: no" and back.ids == {"stream_id": "door"}


def test_a_long_error_still_fits_the_trailer() -> None:
    ids = {f"id_{i}": tuple(range(10_000)) for i in range(40)}

    got = over_the_wire(store.InvalidRecord("ж" * 100_000 + "\udcff", **ids), request_id="r" * 100)
    back = error_of(got)

    assert type(back) is store.InvalidRecord and str(back).startswith("жжж") and str(back).endswith("...")
    assert back.ids["id_0"].startswith("0,1,2,3,")


def test_a_name_that_is_no_text_is_told_all_the_same() -> None:
    back = error_of(over_the_wire(errors.SourceNotFound("no file 'a\udcff.mp4'", path="a\udcff.mp4")))

    assert type(back) is errors.SourceNotFound and str(back) == "no file 'a?.mp4'" and back.ids == {"path": "a?.mp4"}


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (StatusCode.UNAVAILABLE, errors.ClusterUnavailable),
        (StatusCode.DEADLINE_EXCEEDED, errors.DeadlinePassed),
        (StatusCode.RESOURCE_EXHAUSTED, ServiceError),
    ],
)
def test_statuses_that_others_give(code: StatusCode, cls: type[Error]) -> None:
    for trailing in ((), (("grpc-status-details-bin", b"\xff\xff"),), (("grpc-status-details-bin", b""),)):
        got = aio.AioRpcError(code, aio.Metadata(), aio.Metadata(*trailing), details="so a proxy says")
        back = error_of(got)
        assert type(back) is cls and str(back) == f"{code.name}: so a proxy says" and back.ids == {"code": code.name}
        assert retry_after_s(got) is None


def test_an_error_without_a_status() -> None:
    assert type(error_of(grpc.RpcError("odd"))) is ServiceError
