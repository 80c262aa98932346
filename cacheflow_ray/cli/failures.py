"""What a command says and exits with when it fails: one line on stderr, never a traceback unless asked for."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field

from typer import Abort, TyperException

from cacheflow_ray.cli.output import Output
from cacheflow_ray.errors import CacheFlowError, UsageError

FAILED = 1
USAGE = 2
INTERRUPTED = 130


class Interrupted(Exception):
    """Ctrl-C, with what the user should know about the work it cut short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One error as the user sees it.

    Args:
        kind: name of the error's class.
        message: one line; empty says nothing.
        ids: what the error is about.
    """

    kind: str
    message: str
    exit_code: int = FAILED
    ids: Mapping[str, object] = field(default_factory=dict)

    def show(self, output: Output) -> None:
        if not self.message:
            return
        output.error(self.message)
        output.result({"error": {"type": self.kind, "message": self.message, "ids": dict(self.ids)}})


def failure_of(error: BaseException) -> Failure:
    """The failure an exception amounts to. With CACHEFLOW_DEBUG=1 its traceback is printed as well.

    Raises:
        BaseException: `error` itself, when it asks the interpreter to end (SystemExit).
    """
    if isinstance(error, SystemExit | GeneratorExit):
        raise error
    # Not one of `config.Defaults`: it must work when those cannot be read.
    if os.environ.get("CACHEFLOW_DEBUG", "") not in ("", "0"):
        traceback.print_exception(error)
    kind = type(error).__name__
    if isinstance(error, Interrupted):
        return Failure(kind=kind, message=str(error), exit_code=INTERRUPTED)
    if isinstance(error, KeyboardInterrupt | Abort):
        return Failure(kind="Interrupted", message="interrupted", exit_code=INTERRUPTED)
    if isinstance(error, TyperException):
        return Failure(kind="UsageError", message=_one_line(error.format_message()), exit_code=error.exit_code)
    return _of_our_trees(error, kind) or _of_the_system(error, kind)


def _of_our_trees(error: BaseException, kind: str) -> Failure | None:
    # Imported here: the store's package brings LMDB and FAISS along, and `cacheflow --help` must not wait for them.
    from memory_store.errors import InvalidRecord, StoreError, StreamNotFound

    if not isinstance(error, CacheFlowError | StoreError):
        return None
    usage = isinstance(error, UsageError | InvalidRecord | StreamNotFound)
    return Failure(kind=kind, message=_one_line(str(error)), exit_code=USAGE if usage else FAILED, ids=error.ids)


def _of_the_system(error: BaseException, kind: str) -> Failure:
    if isinstance(error, BrokenPipeError):  # the reader of our output has gone, as in `cacheflow ... | head`
        return Failure(kind=kind, message="")
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Failure(kind=kind, message=f"{where}{error.strerror or error}")
    if isinstance(error, MemoryError):
        return Failure(kind=kind, message="out of memory: try a smaller model, or --dtype bfloat16")
    message = f"unexpected {kind}: {_one_line(str(error))} (CACHEFLOW_DEBUG=1 shows where; please report it)"
    return Failure(kind=kind, message=message)


def _one_line(text: str) -> str:
    return " ".join(text.split())
