"""`cacheflow index`: whole libraries of video files, and what became of every one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cacheflow_ray.cli.crew import Crew
from cacheflow_ray.cli.failures import Interrupted
from cacheflow_ray.cli.index_books import cancel_here, is_running, last_run, reading
from cacheflow_ray.cli.index_view import IndexView, tell, tell_files
from cacheflow_ray.cli.ingest import Encoding
from cacheflow_ray.cli.options import Json, ModelChoice, Place, flattened, parse_labels
from cacheflow_ray.cli.output import Output, err_console
from cacheflow_ray.cli.remote import Remote
from cacheflow_ray.cli.retention import Limits
from cacheflow_ray.errors import UsageError

if TYPE_CHECKING:
    from cacheflow_ray.actors.archiving import IndexCall
    from cacheflow_ray.actors.index_api import NewIndex
    from cacheflow_ray.actors.topology import ClusterOptions
    from cacheflow_ray.archive.finding import Found
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


Tenant = Annotated[
    str, typer.Option("--tenant", metavar="NAME", help="Whose streams they are, where the service has keys.")
]


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
    tenant: Tenant = "",
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
    call = _call(sources, found, encoding, limits, crew, labels=labels, retry=retry_failed, tenant=tenant)
    _run(call, crew.cluster(place, model), Output(as_json=as_json))


def retry(
    place: Place,
    model: ModelChoice,
    encoding: Encoding,
    limits: Limits,
    crew: Crew,
    remote: Remote,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    from cacheflow_ray.archive.planning import failed_before

    output = Output(as_json=as_json)
    link = remote.chosen(place, model)
    if link is not None:
        from cacheflow_ray.cli.index_remote import retry_there

        retry_there(link, _wanted_there([], encoding, limits, crew, labels={}, retry=True), output)
        return
    with reading(place, tenant) as books:
        found = failed_before(books.files())
    if not found:
        output.say("no file has failed")
        output.result({"job": None, "files": {}})
        return
    call = _call([own.uri for own in found], found, encoding, limits, crew, labels={}, retry=True, tenant=tenant)
    _run(call, crew.cluster(place, model), output)


def status(place: Place, remote: Remote, tenant: Tenant = "", as_json: Json = False) -> None:
    from cacheflow_ray.archive.planning import NO_VIDEO
    from cacheflow_ray.archive.report import tally, troubles_of

    output = Output(as_json=as_json)
    link = remote.chosen(place)
    if link is not None:
        from cacheflow_ray.cli.index_remote import status_there

        status_there(link, output)
        return
    with reading(place, tenant) as books:
        records, jobs = books.files(), books.jobs()
    files = {state.value: count for state, count in tally(records).items()}
    troubles = troubles_of(records, NO_VIDEO)
    last = jobs[0] if jobs else None
    output.say("no files were indexed yet" if last is None else last_run(last))
    tell_files(files, troubles, output)
    output.result({"files": files, "troubles": troubles, "job": last, "is_running": bool(last and is_running(last))})


def cancel(place: Place, remote: Remote, tenant: Tenant = "", as_json: Json = False) -> None:
    link = remote.chosen(place)
    if link is None:
        cancel_here(place, tenant, Output(as_json=as_json))
        return
    from cacheflow_ray.cli.index_remote import cancel_there

    cancel_there(link, Output(as_json=as_json))


def _call(
    sources: Sequence[str],
    found: Sequence[Found],
    encoding: Encoding,
    limits: Limits,
    crew: Crew,
    *,
    labels: dict[str, str],
    retry: bool,
    tenant: str,
) -> IndexCall:
    from cacheflow_ray.actors.archiving import IndexCall
    from cacheflow_ray.archive.indexing import Wanted

    retention = None if limits == Limits() else limits.policy()
    wanted = Wanted(settings=encoding.settings(), retention=retention, tenant=tenant, options=crew.options())
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
        indexers=crew.indexers or 1,
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
