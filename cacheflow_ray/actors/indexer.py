"""Files through Ray Data: a dataset of them, mapped by a pool of actors that each have a model and an encoder pool."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from cacheflow_ray.actors.remote_store import RemoteStore
from cacheflow_ray.actors.setup import Setup
from cacheflow_ray.actors.spawning import bound_to
from cacheflow_ray.archive.books import Books
from cacheflow_ray.archive.meter import Counts, Meter
from cacheflow_ray.archive.records import FileRecord

if TYPE_CHECKING:
    from cacheflow_ray.archive.indexing import Wanted
    from cacheflow_ray.engine.pool import StepReport

_REPORT_EVERY_S = 0.5
_CLOSE_S = 60.0
#: Tasks for each file being indexed at a time: enough to spread them evenly, few enough to keep track of.
_TASKS = 64


class Indexer:
    """Indexes the files of the batches it is given, several at once, in threads of Ray's."""

    def __init__(self, setup: Setup, wanted: Wanted, board: Any) -> None:
        # Whoever starts an actor imports its class: torch is left to those that compute.
        import torch

        from cacheflow_ray.archive.indexing import FileIndexer
        from cacheflow_ray.engine.opened import Backend
        from cacheflow_ray.engine.pool import EncoderPool
        from cacheflow_ray.models import load_model

        if setup.encoder_options.torch_threads is not None:
            torch.set_num_threads(setup.encoder_options.torch_threads)
        self._board, self._meter, self._stop = board, Meter(), threading.Event()
        store = RemoteStore(setup)
        backend = Backend(model=load_model(setup.model, setup.model_options), store=store)
        pool = EncoderPool(backend, setup.encoder_options, group_of=store.place_of, on_step=self._step)
        books = Books(store.ledger, wanted.tenant)
        self._indexer = FileIndexer(backend, pool, books, wanted, self._meter, self._stop.wait)
        threading.Thread(target=self._report_for_ever, name="report", daemon=True).start()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Args: batch: `uri`, of files."""
        states = []
        for uri in batch["uri"]:
            ray.get(self._board.began.remote())
            record = self._indexer.index(str(uri))
            self._report()
            ray.get(self._board.ended.remote(record.state, record.size or 0))
            states.append(record.state.value)
        return {"uri": batch["uri"], "state": states}

    def _step(self, step: StepReport) -> None:
        self._meter.add(Counts(encode_s=sum(step.stages_s.values())))

    def _report(self) -> None:
        if ray.get(self._board.report.remote(self._meter.take())):
            self._stop.set()

    def _report_for_ever(self) -> None:
        with suppress(RayError):  # the run is over
            while not self._stop.wait(_REPORT_EVERY_S):
                self._report()


def index_files(
    setup: Setup, files: Sequence[FileRecord], wanted: Wanted, board: Any, watch: Callable[[], None]
) -> None:
    """Index files that are in the books, in that order or nearly so; returns when all are as far as they go.

    Args:
        board: a `Board`; told to stop, what is under way is kept and the rest is left.
        watch: called twice a second; what it raises stops the run.

    Raises:
        RayError: an indexer cannot be made or cannot go on.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            for _ in _dataset(setup, files, wanted, board).iter_batches(batch_size=None):
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="index", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_REPORT_EVERY_S)
            watch()
    except BaseException:
        ray.get(board.stop.remote())
        thread.join(_CLOSE_S)
        raise
    if failures:
        raise failures[0]


def _dataset(setup: Setup, files: Sequence[FileRecord], wanted: Wanted, board: Any) -> Any:
    import ray.data

    _be_quiet(ray.data.DataContext.get_current())
    options = wanted.options
    at_once = options.files_at_once
    pool = ray.data.ActorPoolStrategy(
        size=options.indexers,
        max_tasks_in_flight_per_actor=2 * at_once,
        max_concurrent_calls_per_actor=at_once,
        enable_true_multi_threading=True,
    )
    num_tasks = min(len(files), _TASKS * options.indexers * at_once)
    rows = [{"uri": record.uri} for record in files]
    return ray.data.from_items(rows, override_num_blocks=num_tasks).map_batches(
        Indexer,
        fn_constructor_args=(setup, wanted, board),
        batch_size=1,
        compute=pool,
        num_cpus=options.cpus_per_indexer,
        num_gpus=options.gpus_per_indexer,
        label_selector=None if options.role_label is None else {options.role_label: "indexer"},
        **bound_to(setup.topology, "encoder"),
    )


def _be_quiet(context: Any) -> None:
    """Progress is ours to show."""
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray._private"):
        logging.getLogger(name).setLevel(logging.ERROR)
