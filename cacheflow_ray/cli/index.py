"""`cacheflow index`: whole libraries of video files, and what became of every one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cacheflow_ray.cli.crew import Crew
from cacheflow_ray.cli.failures import Interrupted
from cacheflow_ray.cli.index_view import IndexView, tell, tell_files
from cacheflow_ray.cli.ingest import Encoding
from cacheflow_ray.cli.memory import folder_of
from cacheflow_ray.cli.options import Json, ModelChoice, Place, flattened, parse_labels
from cacheflow_ray.cli.output import Output, err_console, plural
from cacheflow_ray.cli.remote import Remote
from cacheflow_ray.cli.retention import Limits
from cacheflow_ray.errors import UsageError

if TYPE_CHECKING:
    from cacheflow_ray.actors.archiving import IndexCall
    from cacheflow_ray.actors.index_api import NewIndex
    from cacheflow_ray.actors.topology import ClusterOptions
    from cacheflow_ray.archive.finding import Found
    from cacheflow_ray.archive.records import JobRecord
    from cacheflow_ray.archive.report import IndexReport

EPILOG = """Examples:

$ cacheflow index /videos --data /archive

$ cacheflow index '/videos/**/*.mkv' library.csv s3://bucket/clips --label year=2026

$ cacheflow index /videos --indexers 8 --gpus-per-indexer 1 --ray-address auto

$ cacheflow index /videos --summary-only-after 0

$ cacheflow index videos s3://bucket/clips --server gpu-box:50051

$ cacheflow index status --data /archive

A file is known by its content: what is indexed is not indexed again, under whatever name. After Ctrl-C or a crash, the
same command goes on where it stopped. A service (--server) reads addresses, and files below its --source-root; its job
goes on after Ctrl-C. A manifest is a .csv or .jsonl of uri, and if you like stream, labels, start.
Beside run, there are status, cancel and retry."""


class _Runs(TyperGroup):
    """A group whose first word may be left out: what is no subcommand's name is given to `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["run", *args]
        return list(super().parse_args(ctx, args))


def register(app: typer.Typer) -> None:
    group = typer.Typer(cls=_Runs, no_args_is_help=True)
    group.command("run", help="Index files: the word run may be left out.", epilog=EPILOG)(flattened(run))
    group.command("status", help="Tell how far the archive is, and which files failed.")(flattened(status))
    group.command("cancel", help="Stop the run under way; what is encoded is kept.")(flattened(cancel))
    group.command("retry", help="Try the files that failed again, whatever it was.")(flattened(retry))
    app.add_typer(group, name="index", help="Index whole libraries of video files.", epilog=EPILOG)


def run(
    sources: Annotated[
        list[str], typer.Argument(metavar="PATH", help="Folders, patterns, manifests, files, or addresses.")
    ],
    place: Place,
    model: ModelChoice,
    encoding: Encoding,
    limits: Limits,
    crew: Crew,
    remote: Remote,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="A label of every stream.")] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry", help="Try what failed for its own fault again, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    from cacheflow_ray.archive.finding import find

    labels = parse_labels(label or [])
    link = remote.chosen(place, model)
    if link is not None:
        from cacheflow_ray.cli.index_remote import run_there

        new = _wanted_there(sources, encoding, limits, crew, labels=labels, retry=retry_failed)
        run_there(link, new, Output(as_json=as_json))
        return
    with err_console().status("looking for files"):
        found = find(sources)
    call = _call(sources, found, encoding, limits, crew, labels=labels, retry=retry_failed)
    _run(call, crew.cluster(place, model), Output(as_json=as_json))


def retry(
    place: Place,
    model: ModelChoice,
    encoding: Encoding,
    limits: Limits,
    crew: Crew,
    remote: Remote,
    as_json: Json = False,
) -> None:
    from cacheflow_ray.archive.finding import Found
    from cacheflow_ray.archive.records import FileState

    output = Output(as_json=as_json)
    link = remote.chosen(place, model)
    if link is not None:
        from cacheflow_ray.cli.index_remote import retry_there

        retry_there(link, _wanted_there([], encoding, limits, crew, labels={}, retry=True), output)
        return
    with _reading(place) as books:
        failed = [record for record in books.files() if record.state is FileState.FAILED]
    found = [
        Found(uri=record.uri, name=record.stream, is_named=True, labels=record.labels, start=record.start)
        for record in failed
    ]
    if not found:
        output.say("no file has failed")
        output.result({"job": None, "files": {}})
        return
    call = _call([record.uri for record in failed], found, encoding, limits, crew, labels={}, retry=True)
    _run(call, crew.cluster(place, model), output)


def status(place: Place, remote: Remote, as_json: Json = False) -> None:
    from cacheflow_ray.archive.planning import NO_VIDEO
    from cacheflow_ray.archive.report import tally, troubles_of

    output = Output(as_json=as_json)
    link = remote.chosen(place)
    if link is not None:
        from cacheflow_ray.cli.index_remote import status_there

        status_there(link, output)
        return
    with _reading(place) as books:
        records, jobs = books.files(), books.jobs()
    files = {state.value: count for state, count in tally(records).items()}
    troubles = troubles_of(records, NO_VIDEO)
    last = jobs[0] if jobs else None
    output.say("no files were indexed yet" if last is None else _last_run(last))
    tell_files(files, troubles, output)
    output.result({"files": files, "troubles": troubles, "job": last, "is_running": bool(last and _is_running(last))})


def cancel(place: Place, remote: Remote, as_json: Json = False) -> None:
    link = remote.chosen(place)
    if link is None:
        _cancel(place, Output(as_json=as_json))
        return
    from cacheflow_ray.cli.index_remote import cancel_there

    cancel_there(link, Output(as_json=as_json))


def _cancel(place: Place, output: Output) -> None:
    import dataclasses
    import os
    import signal
    import socket

    from cacheflow_ray.archive.books import Books
    from cacheflow_ray.archive.records import JobState
    from memory_store import Store

    with _reading(place) as books:
        jobs = [job for job in books.jobs() if job.state is JobState.RUNNING]
    if not jobs:
        raise UsageError("no run is under way")
    job = jobs[0]
    if _is_running(job):
        os.kill(job.pid, signal.SIGINT)
        _wait_until_over(place, job)
    elif job.host != socket.gethostname():
        raise UsageError(f"the run is at {job.host!r}: cancel it there", host=job.host)
    else:  # it was killed: what it left is picked up by the next run
        with Store.open(folder_of(place)) as store:
            Books(store.ledger).put_job(dataclasses.replace(job, state=JobState.CANCELLED, ended_s=time.time()))
    output.say(f"run {job.id} is cancelled: the same command goes on with it")
    output.result({"job": job.id, "state": JobState.CANCELLED})


def _call(
    sources: Sequence[str],
    found: Sequence[Found],
    encoding: Encoding,
    limits: Limits,
    crew: Crew,
    *,
    labels: dict[str, str],
    retry: bool,
) -> IndexCall:
    from cacheflow_ray.actors.archiving import IndexCall
    from cacheflow_ray.archive.indexing import Wanted

    retention = None if limits == Limits() else limits.policy()
    wanted = Wanted(settings=encoding.settings(), retention=retention, options=crew.options())
    return IndexCall(sources=sources, found=found, wanted=wanted, labels=labels, retry=retry)


def _wanted_there(
    sources: Sequence[str],
    encoding: Encoding,
    limits: Limits,
    crew: Crew,
    *,
    labels: dict[str, str],
    retry: bool,
) -> NewIndex:
    """Raises: UsageError: of the crew, something that is the service's own to say. InvalidConfig."""
    from cacheflow_ray.actors.index_api import NewIndex

    if crew.is_local:
        raise UsageError(
            "a service has its own ways: of the cluster's options leave all but --indexers and --files-at-once out"
        )
    return NewIndex(
        sources=tuple(sources),
        settings=encoding.settings(),
        labels=labels,
        retention=None if limits == Limits() else limits.policy(),
        retry_failed=retry,
        indexers=crew.indexers,
        files_at_once=crew.files_at_once,
    )


def _run(call: IndexCall, cluster: ClusterOptions, output: Output) -> None:
    import os

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray Data's actors speak of errors that are none

    from cacheflow_ray.actors.archiving import run_index
    from cacheflow_ray.actors.topology import disconnect, stores

    try:
        with err_console().status("starting") as starting, stores(cluster) as setup, IndexView() as view:
            starting.stop()
            report: IndexReport = run_index(setup, call, view)
    except KeyboardInterrupt:
        raise Interrupted("interrupted: what was encoded is kept; the same command again goes on") from None
    finally:
        disconnect()
    tell(report, output)
    output.result(report)


def _reading(place: Place) -> Any:
    """The books of a folder that another process may be writing; a context manager."""
    from contextlib import contextmanager

    from cacheflow_ray.archive.books import Books
    from memory_store import Store

    @contextmanager
    def opened() -> Any:
        with Store.open(folder_of(place), read_only=True) as store:
            yield Books(store.ledger)

    return opened()


def _last_run(job: JobRecord) -> str:
    from cacheflow_ray.archive.records import JobState

    how = job.state.value
    if job.state is JobState.RUNNING and not _is_running(job):
        how = "was interrupted: run it again to go on"
    took = f" for {(job.ended_s or time.time()) - job.started_s:.0f} s"
    return f"last run {job.id} ({plural(len(job.sources), 'source')}): {how}{took if job.ended_s else ''}"


def _is_running(job: JobRecord) -> bool:
    """Whether its process is alive, as far as can be told from here."""
    import os
    import socket

    from cacheflow_ray.archive.records import JobState

    if job.state is not JobState.RUNNING or job.host != socket.gethostname():
        return False
    try:
        os.kill(job.pid, 0)
    except OSError:
        return False
    return True


def _wait_until_over(place: Place, job: JobRecord) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with _reading(place) as books:
            now = books.job(job.id)
        if now is None or now.ended_s is not None:
            return
        time.sleep(0.2)
    raise UsageError(f"run {job.id} (process {job.pid}) has not ended in two minutes: end it by hand", pid=job.pid)
