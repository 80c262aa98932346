"""The `cacheflow` application: its commands, and what becomes of their errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from cacheflow_ray import __version__
from cacheflow_ray.cli import (
    ask,
    bench,
    demo,
    evaluate,
    health,
    index,
    ingest,
    inspect,
    scale,
    search,
    serve,
    store,
    streams,
    top,
    train,
)
from cacheflow_ray.cli.failures import INTERRUPTED, Failure, failure_of
from cacheflow_ray.cli.output import Output, quiet_libraries

#: Every command module adds its commands to the application.
COMMANDS: tuple[Callable[[typer.Typer], None], ...] = (
    ingest.register,
    ask.register,
    search.register,
    index.register,
    streams.register,
    store.register,
    inspect.register,
    demo.register,
    evaluate.register,
    bench.register,
    train.register,
    serve.register,
    top.register,
    scale.register,
    health.register,
)


def make_app() -> typer.Typer:
    app = typer.Typer(
        name="cacheflow",
        help="A long-term memory for video: stream it in once, ask about any moment of it later.",
        epilog="Settings not given are taken from the environment: CACHEFLOW_DATA, CACHEFLOW_MODEL, CACHEFLOW_DEVICE, "
        "CACHEFLOW_DTYPE, CACHEFLOW_ATTENTION, CACHEFLOW_SERVER, CACHEFLOW_API_KEY. CACHEFLOW_DEBUG=1 shows "
        "tracebacks.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for register in COMMANDS:
        register(app)
    return app


def run(args: Sequence[str]) -> int:
    """Run one command line; the exit code: 0 done, 1 failure, 2 usage, 130 interrupted.

    An error is one line on stderr; with --json it is also the object on stdout: {"error": {"type", "message", "ids"}}.
    """
    quiet_libraries()
    try:
        code = make_app()(args=list(args), prog_name="cacheflow", standalone_mode=False)
    except BaseException as error:
        failure = failure_of(error)
        failure.show(Output(as_json="--json" in args))
        return failure.exit_code
    if code == INTERRUPTED:  # typer swallows a Ctrl-C that no command of ours had something to say about
        Failure(kind="Interrupted", message="interrupted", exit_code=INTERRUPTED).show(Output(as_json="--json" in args))
    return code if isinstance(code, int) else 0


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=lambda on: _version(on))
    ] = False,
) -> None:
    pass


def _version(wanted: bool) -> None:
    if wanted:
        print(f"cacheflow {__version__}")
        raise typer.Exit
