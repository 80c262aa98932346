"""All runs in turn, several rounds of them: what else the machine does meanwhile hits all alike, and medians count."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from cacheflow_ray.bench.scale.asking import STREAM, Asker, AskRun, ask_amounts, fill_memory, num_vectors
from cacheflow_ray.bench.scale.calibrating import IngestRun, run_ingest, stream_name
from cacheflow_ray.bench.scale.counting import amounts, full_blocks, keep_after_first
from cacheflow_ray.bench.scale.decoding import Decoding, measure_decoding
from cacheflow_ray.bench.scale.fitting import Amounts
from cacheflow_ray.bench.scale.measured import Fitted, fit_all, patches_of
from cacheflow_ray.bench.scale.sizes import Ingests, ScaleSizes
from cacheflow_ray.bench.scale.validate import Validation, compare, predict
from cacheflow_ray.config import KvCodec, StreamSettings
from cacheflow_ray.engine import VideoMemory
from cacheflow_ray.engine.spec import StreamSpec
from cacheflow_ray.models import VideoModel

CODECS: tuple[KvCodec, ...] = ("native", "int8", "fp8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything that was run.

    Args:
        fitted: costs, of the calibrating runs alone.
        validation: of the held-out ones.
        block_sizes: bytes of a block by codec.
        decoded: every codec at every size.
        contention: of the calibrating ingests, seconds by the clock over those less waiting for a core: 1 where the
            machine has nothing else to do.
        keep: of the held-out ingest after its first frames, as the sample told and as it was.
    """

    fitted: Fitted
    validation: Validation
    block_sizes: dict[str, float]
    decoded: list[Decoding]
    contention: float
    keep: tuple[float, float]


@dataclass(slots=True)
class Rounds:
    """One run's model, folder and sizes; `note` shows a line of progress."""

    model: VideoModel
    folder: Path
    sizes: ScaleSizes
    note: Callable[[str], None]

    def measure(self) -> Measured:
        """Look at a sample of the held-out workload, run everything in rounds, fit, and compare."""
        sizes = self.sizes
        self.note("decoding")
        decoded = measure_decoding(
            self.folder, frames=sizes.decoded_frames, sizes=sizes.decoded_sizes, rounds=sizes.rounds
        )
        keep, ahead = self._sample()
        blocks = full_blocks(sizes.held_out, keep, patches_of(self.model), self.model.default_block_size)
        done = amounts(sizes.held_out, blocks)
        for stored in sorted({asked.blocks for asked in sizes.asked}):
            self.note(f"storing a memory of {stored} blocks")
            fill_memory(self.model, self._asked_folder(stored), stored)
        ingests, asks, held_out, held_asks = self._rounds()
        fitted = fit_all(ingests, asks, decoded, _cores())
        validation = compare(predict(fitted, done, ahead), held_out, held_asks)
        return Measured(
            fitted=fitted,
            validation=validation,
            block_sizes=self._block_sizes(),
            decoded=decoded,
            contention=sum(run.clock_s for run in ingests) / sum(run.own_s for run in ingests),
            keep=(keep, keep_after_first(held_out.keep, sizes.held_out.frames)),
        )

    def _sample(self) -> tuple[float, Amounts]:
        """Of a part of one stream of the held-out workload: the keep rate after the first frame, and what a question
        about the whole does."""
        sizes, model = self.sizes, self.model
        self.note("looking at a sample of the workload that is to be predicted")
        sample = replace(sizes.held_out, streams=1, frames=sizes.sample_frames)
        folder = self.folder / "sample"
        run = run_ingest(model, self.folder, folder, sample)
        with VideoMemory.open(folder, model=model) as memory:
            asker = Asker(sizes.held_out_ask, (stream_name(0),))
            asker.warm_up(memory)
            asker.ask(memory)
            vectors_each = num_vectors(memory, stream_name(0)) / max(1.0, run.amounts["blocks"])
        size, keep = model.default_block_size, keep_after_first(run.keep, sizes.sample_frames)
        blocks = full_blocks(replace(sizes.held_out, streams=1), keep, patches_of(model), size)
        window = StreamSpec.resolve(model.recommended.stream_settings(None), model, "").window_blocks
        held = min(blocks, sizes.held_out_ask.top_k + window)
        context = model.prefix.length + held * size + size / 2
        return keep, ask_amounts(vectors=blocks * vectors_each, context=context, tokens=asker.run().generated)

    def _rounds(self) -> tuple[list[IngestRun], list[AskRun], IngestRun, AskRun]:
        sizes = self.sizes
        kinds = list(sizes.calibrated)
        kinds.insert(len(kinds) // 2, sizes.held_out)
        ingests: dict[Ingests, list[IngestRun]] = {kind: [] for kind in kinds}
        askers = {Asker(own, (STREAM,)): self._asked_folder(own.blocks) for own in sizes.asked}
        about_held_out = Asker(sizes.held_out_ask, tuple(map(stream_name, range(sizes.held_out.streams))))
        for at in range(sizes.rounds + 1):
            self.note(f"round {at} of {sizes.rounds}: calibrating, and what is to be predicted")
            for kind in kinds[:: -1 if at % 2 else 1]:
                run = run_ingest(self.model, self.folder, self._ingest_folder(kind), kind)
                if at:  # the first is not counted
                    ingests[kind].append(run)
            self._ask_in_turn(askers | {about_held_out: self._ingest_folder(sizes.held_out)}, counted=at > 0)
        return (
            [_middle(ingests[kind]) for kind in sizes.calibrated],
            [asker.run() for asker in askers],
            _middle(ingests[sizes.held_out]),
            about_held_out.run(),
        )

    def _ask_in_turn(self, askers: Mapping[Asker, Path], *, counted: bool) -> None:
        """One question of every kind after the other, forwards and backwards."""
        with ExitStack() as stack:
            memories = {
                folder: stack.enter_context(VideoMemory.open(folder, model=self.model))
                for folder in dict.fromkeys(askers.values())
            }
            for asker, folder in askers.items():
                asker.warm_up(memories[folder])
            for at in range(self.sizes.questions_a_round if counted else 0):
                for asker in list(askers)[:: -1 if at % 2 else 1]:
                    asker.ask(memories[askers[asker]])

    def _ingest_folder(self, kind: Ingests) -> Path:
        return self.folder / ("held-out" if kind == self.sizes.held_out else "calibrating")

    def _block_sizes(self) -> dict[str, float]:
        """Of the calibrating ingest with most blocks for its length."""
        self.note("sizes of blocks by codec")
        kind = max(self.sizes.calibrated, key=lambda own: own.tau)
        return {
            codec: run_ingest(
                self.model, self.folder, self.folder / codec, kind, StreamSettings(kv_codec=codec)
            ).block_bytes
            for codec in CODECS
        }

    def _asked_folder(self, blocks: int) -> Path:
        return self.folder / f"asked-{blocks}"


def _middle(runs: Sequence[IngestRun]) -> IngestRun:
    """The run that took the median, whose stages add up to it; with the median of processor time."""
    middle = sorted(runs, key=lambda run: run.own_s)[len(runs) // 2]
    return replace(middle, core_s=median(run.core_s for run in runs))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
