"""Index jobs of a service in a real cluster: from create to report, killed on the way, cancelled, of two tenants."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import ray

from cacheflow_ray.actors.index_api import FilePage, IndexView, NewIndex
from cacheflow_ray.actors.index_job import actor_name
from cacheflow_ray.actors.index_jobs import IndexJobs
from cacheflow_ray.archive.records import FileRecord, FileState, JobState
from cacheflow_ray.errors import ClusterUnavailable, JobNotFound, SourceNotFound, UsageError
from tests.actors.running import Running
from tests.archive.library import write_library
from tests.oracles import settings


@pytest.fixture
def shelf(live: Running, tmp_path: Path) -> Path:
    """A library of ten files below the service's source root."""
    assert live.setup.source_root is not None
    folder = live.setup.source_root / tmp_path.name
    write_library(folder, 10)
    return folder


async def until(jobs: IndexJobs, tenant: str, job_id: str, ends: Callable[[IndexView], bool]) -> IndexView:
    async with asyncio.timeout(240):
        while not ends(view := await jobs.get(tenant, job_id)):
            await asyncio.sleep(0.2)
    return view


def wanted(folder: Path, tenant: str, **more: object) -> NewIndex:
    return NewIndex(sources=(folder.name,), tenant=tenant, settings=settings(), **more)  # type: ignore[arg-type]


async def files(jobs: IndexJobs, tenant: str) -> dict[str, FileRecord]:
    page = FilePage(tenant=tenant, after="", limit=1000)
    return {Path(record.uri).name: record for record in await jobs.files(page)}


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test, 300)

    asyncio.run(bounded())


@pytest.mark.timeout(600)
def test_a_killed_job_goes_on_and_tenants_share_nothing(live: Running, shelf: Path) -> None:
    (shelf / "out.mp4").symlink_to(shutil.which("sh") or "/bin/sh")
    run(_killed_and_shared(live, shelf))


async def _killed_and_shared(live: Running, shelf: Path) -> None:
    cluster, namespace = live.cluster(), live.setup.namespace
    jobs = cluster.index
    new = wanted(shelf, "acme", labels={"shelf": "1"})
    started = await jobs.start(new)
    assert not started.is_over
    name = actor_name("acme", new.job_id)
    first = ray.get(ray.get_actor(name, namespace).status.remote(), timeout=60)[0]
    async with asyncio.timeout(120):
        while not {own.state for own in (await files(jobs, "acme")).values()} & {FileState.RUNNING, FileState.DONE}:
            await asyncio.sleep(0.02)
    os.kill(first, signal.SIGKILL)
    assert not (await jobs.get("acme", new.job_id)).is_over
    view = await until(jobs, "acme", new.job_id, lambda view: view.is_over)
    assert (view.job.state, view.error) == (JobState.DONE, None)
    assert view.job.pid != first and view.job.started_s == started.job.started_s
    assert (await jobs.start(new)).job == view.job

    of_acme = await files(jobs, "acme")
    states = {state: sum(own.state is state for own in of_acme.values()) for state in FileState}
    assert states == {**dict.fromkeys(FileState, 0), FileState.DONE: 7, FileState.FAILED: 2, FileState.SKIPPED: 2}
    assert "reads no file" in of_acme["out.mp4"].reason and of_acme["out.mp4"].size is None
    assert view.totals.files == states and view.totals.already_done == 0
    for record in of_acme.values():
        if record.state is FileState.DONE:
            stream = await cluster.get_stream(record.stream)
            assert record.stream.startswith("acme:") and stream.tenant == "acme"
            assert stream.info.labels == {"shelf": "1"} and stream.position.complete

    uris = {own.uri for own in of_acme.values()}
    for other in ("zeta", ""):
        assert not uris & {own.uri for own in (await files(jobs, other)).values()}
        with pytest.raises(JobNotFound):
            await jobs.get(other, new.job_id)
    keep = shelf / "shelf-0" / "video-000.mp4"
    same = await jobs.start(NewIndex(sources=(str(keep),), tenant="zeta", settings=settings()))
    view = await until(jobs, "zeta", same.job.id, lambda view: view.is_over)
    (record,) = (await files(jobs, "zeta")).values()
    assert record.state is FileState.DONE and record.stream == "zeta:video-000", record
    assert of_acme == await files(jobs, "acme")
    await jobs.forget("acme", new.job_id)
    with pytest.raises(JobNotFound):
        await jobs.get("acme", new.job_id)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_is_cancelled_told_honestly_and_gone_on_with(live: Running, shelf: Path) -> None:
    run(_cancelled(live, shelf))


async def _cancelled(live: Running, shelf: Path) -> None:
    jobs, namespace = live.cluster().index, live.setup.namespace
    new = wanted(shelf, "mute", files_at_once=1)
    await jobs.start(new)
    with pytest.raises(UsageError, match="under way"):
        await jobs.forget("mute", new.job_id)
    await until(jobs, "mute", new.job_id, lambda view: view.job.pid != 0)
    await jobs.cancel("mute", new.job_id)
    view = await until(jobs, "mute", new.job_id, lambda view: view.is_over)
    assert (view.job.state, view.error) == (JobState.CANCELLED, None)
    done = view.totals.files[FileState.DONE]
    assert done < 7 and view.totals.files[FileState.PENDING] > 0

    second = wanted(shelf, "mute")
    await jobs.start(second)
    ray.kill(ray.get_actor(actor_name("mute", second.job_id), namespace))  # as when its cluster is stopped
    view = await until(jobs, "mute", second.job_id, lambda view: view.is_over)
    assert view.job.state is JobState.RUNNING and isinstance(view.error, ClusterUnavailable)
    await jobs.start(second)
    view = await until(jobs, "mute", second.job_id, lambda view: view.is_over)
    assert view.job.state is JobState.DONE
    assert view.totals.files[FileState.DONE] == 7 and view.totals.already_done == done


def test_a_job_that_cannot_begin_says_why(live: Running) -> None:
    run(_cannot_begin(live))


async def _cannot_begin(live: Running) -> None:
    jobs = live.cluster().index
    for source in ("/etc/passwd", "../x", "file:///etc/passwd"):
        with pytest.raises(UsageError, match="the service"):
            await jobs.start(NewIndex(sources=(source,), tenant="none"))
    assert not await jobs.jobs("none")
    new = NewIndex(sources=("no-such-folder",), tenant="none")
    await jobs.start(new)
    view = await until(jobs, "none", new.job_id, lambda view: view.is_over)
    assert view.job.state is JobState.FAILED and isinstance(view.error, SourceNotFound)
    with pytest.raises(UsageError, match="another job's"):
        await jobs.start(NewIndex(sources=("others",), tenant="none", job_id=new.job_id))
