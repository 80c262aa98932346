"""The service's methods."""

from __future__ import annotations

from grpc_health.v1 import health_pb2

from cacheflow_ray.service.client.channel import Method
from cacheflow_ray.service.v1 import admin_pb2, answer_pb2, ingest_pb2, search_pb2, stream_pb2

_STREAMS = "/cacheflow.v1.StreamService"
_ADMIN = "/cacheflow.v1.AdminService"

CREATE_STREAM = Method(f"{_STREAMS}/CreateStream", stream_pb2.CreateStreamRequest, stream_pb2.CreateStreamResponse)
GET_STREAM = Method(f"{_STREAMS}/GetStream", stream_pb2.GetStreamRequest, stream_pb2.GetStreamResponse)
LIST_STREAMS = Method(f"{_STREAMS}/ListStreams", stream_pb2.ListStreamsRequest, stream_pb2.ListStreamsResponse)
UPDATE_STREAM = Method(f"{_STREAMS}/UpdateStream", stream_pb2.UpdateStreamRequest, stream_pb2.UpdateStreamResponse)
DELETE_STREAM = Method(f"{_STREAMS}/DeleteStream", stream_pb2.DeleteStreamRequest, stream_pb2.DeleteStreamResponse)
INGEST = Method("/cacheflow.v1.IngestService/Ingest", ingest_pb2.IngestRequest, ingest_pb2.IngestResponse)
ASK = Method("/cacheflow.v1.AnswerService/Ask", answer_pb2.AskRequest, answer_pb2.AskResponse)
SEARCH = Method("/cacheflow.v1.SearchService/Search", search_pb2.SearchRequest, search_pb2.SearchResponse)
GET_STATUS = Method(f"{_ADMIN}/GetStatus", admin_pb2.GetStatusRequest, admin_pb2.GetStatusResponse)
SCALE = Method(f"{_ADMIN}/Scale", admin_pb2.ScaleRequest, admin_pb2.ScaleResponse)
HEALTH = Method("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse)
