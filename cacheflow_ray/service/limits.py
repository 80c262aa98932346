"""How much is under way, and who may start more."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from cacheflow_ray.actors.api import ClusterPort
from cacheflow_ray.config import ServiceLimits
from cacheflow_ray.errors import LimitExceeded
from cacheflow_ray.service.keys import Tenant
from memory_store.errors import StreamNotFound


def check(limit: str, allowed: int, wanted: int, what: str) -> None:
    """Raises LimitExceeded: more is wanted than allowed. `what` says of what, and what to do."""
    if wanted > allowed:
        raise LimitExceeded(f"{limit}: {wanted} is more than {allowed} {what}", limit=limit, value=allowed)


class Turnstile:
    """Counts ingests and questions of this gateway, and refuses those that are too many."""

    def __init__(self, limits: ServiceLimits) -> None:
        self.limits = limits
        self.num_ingests = 0
        self.questions: Counter[str] = Counter()
        self._making: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @contextmanager
    def ingest(self) -> Iterator[None]:
        """One stream's push. Raises: LimitExceeded."""
        check("max_ingests", self.limits.max_ingests, self.num_ingests + 1, "streams pushed at a time: try again later")
        self.num_ingests += 1
        try:
            yield
        finally:
            self.num_ingests -= 1

    @contextmanager
    def question(self, tenant: Tenant, num_streams: int) -> Iterator[None]:
        """One question or search. Raises: LimitExceeded."""
        limits, name = self.limits, tenant.name
        check("max_streams_per_question", limits.max_streams_per_question, num_streams, "streams: name fewer")
        check("max_questions", limits.max_questions, self.questions.total() + 1, "at a time: try again later")
        mine = tenant.max_questions or limits.max_tenant_questions
        check("max_tenant_questions", mine, self.questions[name] + 1, "at a time for one tenant: wait for one to end")
        self.questions[name] += 1
        try:
            yield
        finally:
            self.questions[name] -= 1
            self.questions += Counter()  # forget whoever has none

    @asynccontextmanager
    async def making(self, cluster: ClusterPort, tenant: Tenant, stream_id: str) -> AsyncIterator[None]:
        """Make the stream inside, if there is none; a tenant's new streams are made one after the other.

        Raises:
            LimitExceeded: it would be new, and the tenant has as many as it may.
        """
        allowed = tenant.max_streams or self.limits.max_streams
        if allowed is not None:
            async with self._making[tenant.name]:
                if not await _exists(cluster, stream_id):
                    kept = await cluster.list_streams(prefix_of(tenant), "", allowed)
                    check("max_streams", allowed, len(kept) + 1, "streams: delete one")
                    yield
                    return
        yield


def prefix_of(tenant: Tenant) -> str:
    """What the ids of all its streams begin with."""
    return f"{tenant.name}:" if tenant.name else ""


async def _exists(cluster: ClusterPort, stream_id: str) -> bool:
    try:
        await cluster.get_stream(stream_id)
    except StreamNotFound:
        return False
    return True
