"""The actor that runs one index job of a service; all it does is in the books, and it goes when the job is over."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import closing

import ray

from cacheflow_ray.actors.index_api import NewIndex
from cacheflow_ray.actors.process import resident_bytes
from cacheflow_ray.actors.remote_store import RemoteStore
from cacheflow_ray.actors.setup import Setup
from cacheflow_ray.archive.access import Gate
from cacheflow_ray.archive.books import Books
from cacheflow_ray.archive.finding import find
from cacheflow_ray.archive.planning import failed_before
from cacheflow_ray.archive.records import JobState
from cacheflow_ray.archive.report import IndexProgress
from cacheflow_ray.errors import CacheFlowError
from memory_store.errors import StoreError

_LOG = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0


class _Cancelled(Exception):
    """Somebody wants the job to stop."""


class IndexJob:
    """Runs the job from the moment it is made. Killed, it is made again, and goes on where it was."""

    def __init__(self, setup: Setup, new: NewIndex) -> None:
        self._setup, self._new, self._looked_s = setup, new, 0.0
        self._self = ray.get_runtime_context().current_actor
        threading.Thread(target=self._run, name="index", daemon=True).start()

    def status(self) -> tuple[int, int, str, str]:
        """Process, resident bytes and node; what it does is in the books."""
        return os.getpid(), resident_bytes(), ray.get_runtime_context().get_node_id(), ""

    def _run(self) -> None:
        try:
            with closing(RemoteStore(self._setup)) as store:
                self._end(store)
        except (CacheFlowError, StoreError):  # the books cannot be kept: whoever looks sees that nobody runs the job
            _LOG.exception("index job %s was given up", self._new.job_id)
        finally:
            ray.kill(self._self)

    def _end(self, store: RemoteStore) -> None:
        """Bring the job to its end, whichever it is."""
        from cacheflow_ray.actors.archiving import failed

        books = Books(store.ledger, self._new.tenant)
        try:
            if self._is_wanted(books):
                self._index(books)
        except _Cancelled:
            pass  # noted where it was stopped
        except Exception as error:
            job = books.job(self._new.job_id)
            if job is not None and job.state is JobState.RUNNING:  # it came before the run, which notes its own
                books.put_job(failed(job, error))

    def _is_wanted(self, books: Books) -> bool:
        """Not where it had ended when its process died."""
        job = books.job(self._new.job_id)
        return job is not None and job.state is JobState.RUNNING

    def _index(self, books: Books) -> None:
        from cacheflow_ray.actors.archiving import IndexCall, run_index
        from cacheflow_ray.archive.indexing import Wanted
        from cacheflow_ray.config import IndexOptions

        new, topology = self._new, self._setup.topology
        gate = Gate(root=self._setup.source_root)
        options = IndexOptions(
            indexers=new.indexers,
            files_at_once=new.files_at_once,
            gpus_per_indexer=topology.gpus_per_encoder,
            cpus_per_indexer=topology.cpus_per_encoder,
        )
        wanted = Wanted(settings=new.settings, retention=new.retention, tenant=new.tenant, options=options)
        call = IndexCall(
            sources=new.sources,
            found=find(list(map(gate.source, new.sources))) if new.sources else failed_before(books.files()),
            wanted=wanted,
            labels=new.labels,
            retry=new.retry_failed,
            job_id=new.job_id,
            refusal=gate.refusal,
            max_streams=new.max_streams,
        )
        run_index(self._setup, call, lambda now: self._watch(books, now))

    def _watch(self, books: Books, now: IndexProgress) -> None:
        if time.monotonic() - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s = time.monotonic()
            if books.is_stopped(now.job):
                raise _Cancelled


def actor_name(tenant: str, job_id: str) -> str:
    return f"index-{tenant}:{job_id}" if tenant else f"index-{job_id}"
