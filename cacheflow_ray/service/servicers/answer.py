"""AnswerService: questions, answered piece by piece."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from cacheflow_ray.actors.api import Answered, AskCall, ClusterPort
from cacheflow_ray.service.calls import Call
from cacheflow_ray.service.limits import Turnstile
from cacheflow_ray.service.messages import read_question, write_answer
from cacheflow_ray.service.metrics import GatewayMetrics
from cacheflow_ray.service.v1.answer_pb2 import AskRequest, AskResponse


class AnswerServicer:
    """Answers; a client that stops listening stops the generation."""

    def __init__(self, cluster: ClusterPort, turnstile: Turnstile, metrics: GatewayMetrics) -> None:
        self._cluster, self._turnstile, self._metrics = cluster, turnstile, metrics

    async def ask(self, request: AskRequest, call: Call) -> AsyncGenerator[AskResponse, None]:
        question = read_question(request, call.tenant.name, deadline_s=call.deadline_s)
        began, waiting = time.perf_counter(), True
        with self._turnstile.question(call.tenant, len(question.streams)):
            async with _asked(self._cluster, question) as pieces:
                async for piece in pieces:
                    if waiting:
                        self._metrics.first_token_s.observe(time.perf_counter() - began)
                        waiting = False
                    yield _response(piece, call.tenant.name)


@asynccontextmanager
async def _asked(cluster: ClusterPort, question: AskCall) -> AsyncIterator[AsyncIterator[str | Answered]]:
    """The cluster's answer, closed at once however the call ends."""
    pieces = cluster.ask(question)
    try:
        yield pieces
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


def _response(piece: str | Answered, tenant: str) -> AskResponse:
    return AskResponse(text=piece) if isinstance(piece, str) else AskResponse(answer=write_answer(piece, tenant))
