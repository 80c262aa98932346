"""The books of a folder's archive, as `cacheflow index` reads and ends runs by them."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cacheflow_ray.cli.memory import folder_of
from cacheflow_ray.cli.options import Place
from cacheflow_ray.cli.output import Output, plural
from cacheflow_ray.errors import UsageError

if TYPE_CHECKING:
    from cacheflow_ray.archive.books import Books
    from cacheflow_ray.archive.records import JobRecord


@contextmanager
def reading(place: Place, tenant: str) -> Iterator[Books]:
    """The books of a folder that another process may be writing."""
    from cacheflow_ray.archive.books import Books
    from memory_store import Store

    with Store.open(folder_of(place), read_only=True) as store:
        yield Books(store.ledger, tenant)


def cancel_here(place: Place, tenant: str, output: Output) -> None:
    """End the run under way, or note the end of one that was killed. Raises: UsageError."""
    from cacheflow_ray.archive.books import Books
    from cacheflow_ray.archive.records import JobState
    from memory_store import Store

    with reading(place, tenant) as books:
        jobs = [job for job in books.jobs() if job.state is JobState.RUNNING]
    if not jobs:
        raise UsageError("no run is under way")
    job = jobs[0]
    if is_running(job):
        os.kill(job.pid, signal.SIGINT)
        _wait_until_over(place, tenant, job)
    elif job.host != socket.gethostname():
        raise UsageError(f"the run is at {job.host!r}: cancel it there", host=job.host)
    else:  # it was killed: what it left is picked up by the next run
        with Store.open(folder_of(place)) as store:
            Books(store.ledger, tenant).put_job(dataclasses.replace(job, state=JobState.CANCELLED, ended_s=time.time()))
    output.say(f"run {job.id} is cancelled: the same command goes on with it")
    output.result({"job": job.id, "state": JobState.CANCELLED})


def last_run(job: JobRecord) -> str:
    """One line about a run."""
    from cacheflow_ray.archive.records import JobState

    how = job.state.value
    if job.state is JobState.RUNNING and not is_running(job):
        how = "was interrupted: run it again to go on"
    took = f" for {(job.ended_s or time.time()) - job.started_s:.0f} s"
    return f"last run {job.id} ({plural(len(job.sources), 'source')}): {how}{took if job.ended_s else ''}"


def is_running(job: JobRecord) -> bool:
    """Whether its process is alive, as far as can be told from here."""
    from cacheflow_ray.archive.records import JobState

    if job.state is not JobState.RUNNING or job.host != socket.gethostname():
        return False
    try:
        os.kill(job.pid, 0)
    except OSError:
        return False
    return True


def _wait_until_over(place: Place, tenant: str, job: JobRecord) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with reading(place, tenant) as books:
            now = books.job(job.id)
        if now is None or now.ended_s is not None:
            return
        time.sleep(0.2)
    raise UsageError(f"run {job.id} (process {job.pid}) has not ended in two minutes: end it by hand", pid=job.pid)
