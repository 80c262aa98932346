"""Verification in a process of its own: at some damaged pages LMDB ends the process it runs in."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from memory_store.errors import StoreError
from memory_store.store import Store
from memory_store.verify import Finding, Progress, VerifyReport


def verify_apart(path: str | Path, *, repair: bool = False, progress: Progress | None = None) -> VerifyReport:
    """As `Upkeep.verify` of the store at `path`, which this process must not have open for writing.

    A child process does it, started anew: a script that calls this needs `if __name__ == "__main__"`. If LMDB ends the
    child, that is a finding.

    Raises:
        StoreError: the store cannot be opened.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_verify, args=(str(path), repair, sending), daemon=True)
    child.start()
    sending.close()
    try:
        found = _listen(receiving, progress)
    finally:
        if child.is_alive():
            child.terminate()
        child.join()
    return _ended(child.exitcode) if found is None else found


def _listen(receiving: Connection, progress: Progress | None) -> VerifyReport | None:
    """The report; None when the child ended without one."""
    while True:
        try:
            told: Any = receiving.recv()
        except EOFError:
            return None
        if isinstance(told, VerifyReport):
            return told
        if isinstance(told, StoreError):
            raise told
        if progress:
            progress(*told)


def _ended(exit_code: int | None) -> VerifyReport:
    name = signal.Signals(-exit_code).name if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
    problem = f"the verifying process ended early ({name}): try again, with more memory if that was short"
    if name in ("SIGABRT", "SIGBUS", "SIGSEGV"):
        problem = f"LMDB ended the process ({name}) at a damaged page: restore a snapshot, or ingest again"
    finding = Finding(stream_id=None, block_idx=None, what="database", problem=problem)
    return VerifyReport(streams=0, blocks=0, num_bytes=0, findings=(finding,))


def _verify(path: str, repair: bool, sending: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    try:
        with Store.open(path, read_only=not repair, accept_unsynced=True) as store:
            sending.send(store.upkeep.verify(repair=repair, progress=lambda *told: sending.send(told)))
    except StoreError as error:
        sending.send(error)
