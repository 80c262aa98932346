"""`cacheflow index` at a service: the same view and report, of a job that goes on whether anybody looks or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cacheflow_ray.cli.failures import Interrupted
from cacheflow_ray.cli.index_view import IndexView, tell, tell_files
from cacheflow_ray.cli.output import Output, err_console, plural
from cacheflow_ray.errors import UsageError

if TYPE_CHECKING:
    from cacheflow_ray.actors.index_api import NewIndex
    from cacheflow_ray.cli.remote import Link
    from cacheflow_ray.service.client import Client, IndexJob


def run_there(link: Link, new: NewIndex, output: Output) -> None:
    """Have it indexed, and follow it to its report."""
    with link.client() as client:
        with err_console().status("starting"):
            job = client.index(new)
        try:
            with IndexView() as view:
                for now in job:
                    if any(now.states.values()):  # it has found what there is
                        view(now)
            report = job.wait()
        except KeyboardInterrupt:
            raise Interrupted(
                f"{job.name} goes on at {link.address}: cacheflow index status and cancel look after it"
            ) from None
    tell(report, output)
    output.result(report)


def retry_there(link: Link, new: NewIndex, output: Output) -> None:
    """Try again what failed, where anything has."""
    from cacheflow_ray.archive.records import FileState

    with link.client() as client:
        failed = client.index_files(state=FileState.FAILED)
    if failed:
        run_there(link, new, output)
        return
    output.say("no file has failed")
    output.result({"job": None, "files": {}})


def status_there(link: Link, output: Output) -> None:
    """All files of the caller's, and its last job."""
    from cacheflow_ray.archive.planning import NO_VIDEO
    from cacheflow_ray.archive.report import tally, troubles_of

    with link.client() as client:
        records, jobs = client.index_files(), client.index_jobs()
    files = {state.value: count for state, count in tally(records).items()}
    troubles = troubles_of(records, NO_VIDEO)
    last = jobs[0] if jobs else None
    output.say("no files were indexed yet" if last is None else _last(last))
    tell_files(files, troubles, output)
    job = None if last is None else last.view.job
    output.result(
        {"files": files, "troubles": troubles, "job": job, "is_running": last is not None and not last.is_over}
    )


def cancel_there(link: Link, output: Output) -> None:
    """Stop the job under way, and wait until it has stopped."""
    from cacheflow_ray.archive.records import JobState

    with link.client() as client:
        job = _under_way(client)
        job.cancel()
        state = job.wait(120).job.state
    ended = "is cancelled: the same command goes on with it" if state is JobState.CANCELLED else "had ended before"
    output.say(f"{job.name} {ended}")
    output.result({"job": job.view.job.id, "state": state})


def _under_way(client: Client) -> IndexJob:
    jobs: Sequence[IndexJob] = [job for job in client.index_jobs() if not job.is_over]
    if not jobs:
        raise UsageError("no job is under way")
    return jobs[0]


def _last(job: IndexJob) -> str:
    view = job.view
    how = view.job.state.value if view.error is None else str(view.error)
    took = f" for {view.job.ended_s - view.job.started_s:.0f} s" if view.job.ended_s else ""
    return f"last job {job.name} ({plural(len(view.job.sources), 'source')}): {how}{took}"
