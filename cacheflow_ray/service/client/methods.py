"""The service's methods."""

from __future__ import annotations

from google.longrunning import operations_pb2
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2

from cacheflow_ray.service.client.channel import Method
from cacheflow_ray.service.v1 import admin_pb2, answer_pb2, ingest_pb2, library_pb2, search_pb2, stream_pb2

_STREAMS = "/cacheflow.v1.StreamService"
_LIBRARY = "/cacheflow.v1.LibraryService"
_OPERATIONS = "/google.longrunning.Operations"
_ADMIN = "/cacheflow.v1.AdminService"

CREATE_STREAM = Method(f"{_STREAMS}/CreateStream", stream_pb2.CreateStreamRequest, stream_pb2.CreateStreamResponse)
GET_STREAM = Method(f"{_STREAMS}/GetStream", stream_pb2.GetStreamRequest, stream_pb2.GetStreamResponse)
LIST_STREAMS = Method(f"{_STREAMS}/ListStreams", stream_pb2.ListStreamsRequest, stream_pb2.ListStreamsResponse)
UPDATE_STREAM = Method(f"{_STREAMS}/UpdateStream", stream_pb2.UpdateStreamRequest, stream_pb2.UpdateStreamResponse)
DELETE_STREAM = Method(f"{_STREAMS}/DeleteStream", stream_pb2.DeleteStreamRequest, stream_pb2.DeleteStreamResponse)
INGEST = Method("/cacheflow.v1.IngestService/Ingest", ingest_pb2.IngestRequest, ingest_pb2.IngestResponse)
ASK = Method("/cacheflow.v1.AnswerService/Ask", answer_pb2.AskRequest, answer_pb2.AskResponse)
SEARCH = Method("/cacheflow.v1.SearchService/Search", search_pb2.SearchRequest, search_pb2.SearchResponse)
CREATE_INDEX_JOB = Method(f"{_LIBRARY}/CreateIndexJob", library_pb2.CreateIndexJobRequest, operations_pb2.Operation)
LIST_INDEX_FILES = Method(
    f"{_LIBRARY}/ListIndexFiles", library_pb2.ListIndexFilesRequest, library_pb2.ListIndexFilesResponse
)
LIST_OPERATIONS = Method(
    f"{_OPERATIONS}/ListOperations", operations_pb2.ListOperationsRequest, operations_pb2.ListOperationsResponse
)
GET_OPERATION = Method(f"{_OPERATIONS}/GetOperation", operations_pb2.GetOperationRequest, operations_pb2.Operation)
WAIT_OPERATION = Method(f"{_OPERATIONS}/WaitOperation", operations_pb2.WaitOperationRequest, operations_pb2.Operation)
CANCEL_OPERATION = Method(f"{_OPERATIONS}/CancelOperation", operations_pb2.CancelOperationRequest, Empty)
DELETE_OPERATION = Method(f"{_OPERATIONS}/DeleteOperation", operations_pb2.DeleteOperationRequest, Empty)
GET_STATUS = Method(f"{_ADMIN}/GetStatus", admin_pb2.GetStatusRequest, admin_pb2.GetStatusResponse)
SCALE = Method(f"{_ADMIN}/Scale", admin_pb2.ScaleRequest, admin_pb2.ScaleResponse)
HEALTH = Method("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse)
