"""`cacheflow` as processes of its own that start at once: forked from a server that has imported everything already."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cacheflow_ray.cli import main
from cacheflow_ray.engine import VideoMemory
from memory_store.errors import StoreError


class Process:
    """One command line under way.

    Args:
        folder: keeps what it prints.
        args: of the command.
    """

    def __init__(self, folder: Path, *args: object) -> None:
        self._out, self._err = folder / "stdout", folder / "stderr"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["cacheflow_ray.engine", __name__])
        self._process = context.Process(target=_run, args=([str(arg) for arg in args], self._out, self._err))
        self._process.start()

    @property
    def is_running(self) -> bool:
        return self._process.is_alive()

    def send(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; the exit code (negative: killed by that signal)."""
        assert self._process.pid is not None
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(self._process.pid, number)
        return self.wait()

    def wait(self) -> int:
        self._process.join(timeout=120)
        assert self._process.exitcode is not None, "it does not end"
        return self._process.exitcode

    @property
    def printed(self) -> str:
        return self._out.read_text()

    @property
    def complained(self) -> str:
        return self._err.read_text()

    def wait_until(self, done: Callable[[], bool]) -> bool:
        """Whether `done` came true while it was running."""
        while self.is_running:
            if done():
                return True
            time.sleep(0.002)
        return False


def _run(args: list[str], out: Path, err: Path) -> None:
    for path, descriptor in ((out, 1), (err, 2)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    sys.argv = ["cacheflow", *args]
    main()


def frames_kept(data: Path) -> int:
    """Frames of all streams that are durable by now."""
    try:
        with VideoMemory.open(data, read_only=True) as memory:
            return sum(info.frames for info in memory.streams())
    except StoreError:  # not there yet
        return 0
