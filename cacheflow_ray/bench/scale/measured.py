"""Costs of this machine: everything that was run, fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cacheflow_ray.bench.scale import asking, calibrating
from cacheflow_ray.bench.scale.asking import AskRun
from cacheflow_ray.bench.scale.calibrating import IngestRun
from cacheflow_ray.bench.scale.costs import Costs, QuestionCosts, library_bytes
from cacheflow_ray.bench.scale.counting import amounts
from cacheflow_ray.bench.scale.decoding import Decoding
from cacheflow_ray.bench.scale.dimensions import TOKEN_BYTES
from cacheflow_ray.bench.scale.fitting import Amounts, Rates, cost, fit
from cacheflow_ray.bench.scale.sizes import Ingests
from cacheflow_ray.bench.synthetic import block_bytes
from cacheflow_ray.core.summary import make_summary
from cacheflow_ray.engine.spec import StreamSpec
from cacheflow_ray.models import VideoModel
from memory_store.records import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Costs by stage and amount.

    Args:
        ingest_s, ask_s: stage -> amount -> seconds, waiting for a core left out.
        core_s: amount -> processor seconds of an ingest, decoding left out.
        disk_bytes: amount -> bytes.
        decode_s: codec -> a core's seconds for a megapixel, of the largest size measured.
        cores: that a process may use.
    """

    ingest_s: Mapping[str, Rates]
    ask_s: Mapping[str, Rates]
    core_s: Rates
    disk_bytes: Rates
    decode_s: Mapping[str, float]
    cores: int

    def ingest_seconds(self, done: Amounts) -> float:
        """Of one process. Decoding goes on beside the rest as far as there are cores for both."""
        own = sum(cost(rates, done) for rates in self.ingest_s.values())
        return max(own, (own + self.decode_seconds(done)) / self.cores)

    def core_seconds(self, done: Amounts) -> float:
        return cost(self.core_s, done) + self.decode_seconds(done)

    def decode_seconds(self, done: Amounts) -> float:
        return self.decode_s["h264"] * done.get("source_megapixels", 0.0)

    def ask_seconds(self, done: Amounts) -> float:
        return sum(cost(rates, done) for rates in self.ask_s.values())

    def as_json(self) -> dict[str, JsonValue]:
        return {
            "ingest_s": {name: dict(rates) for name, rates in self.ingest_s.items()},
            "ask_s": {name: dict(rates) for name, rates in self.ask_s.items()},
            "core_s": dict(self.core_s),
            "disk_bytes": dict(self.disk_bytes),
            "decode_s": dict(self.decode_s),
        }


def fit_all(ingests: Sequence[IngestRun], asks: Sequence[AskRun], decoded: Sequence[Decoding], cores: int) -> Fitted:
    """Costs from one run of each kind."""
    decode_s = {own.codec: own.core_s / own.megapixels for own in decoded}  # the largest is the last

    def core(run: IngestRun) -> float:
        return max(1e-9, run.core_s - decode_s["h264"] * run.amounts["source_megapixels"])

    return Fitted(
        ingest_s={
            stage: fit([(run.amounts, run.stages_s[stage]) for run in ingests], names)
            for stage, names in calibrating.STAGES.items()
        },
        ask_s={
            stage: fit([(run.amounts, run.stages_s[stage]) for run in asks], names)
            for stage, names in asking.STAGES.items()
        },
        core_s=fit([(run.amounts, core(run)) for run in ingests], calibrating.CORE),
        disk_bytes=fit([(run.amounts, float(run.disk_bytes)) for run in ingests], calibrating.DISK),
        decode_s=decode_s,
        cores=cores,
    )


def unit_costs(fitted: Fitted, model: VideoModel, name: str, *, block_sizes: Mapping[str, float]) -> Costs:
    """What `model.Live` and `model.Archive` need to know, of one process of this machine with one thread.

    A frame and a token cost what they cost an encoder that is as full as one is: 16 streams, an eighth of whose tokens
    are kept.

    Args:
        block_sizes: bytes of one block by codec.
    """
    patches, size = patches_of(model), model.default_block_size
    spec = StreamSpec.resolve(model.recommended.stream_settings(None), model, "")
    typical = Ingests(streams=16, frames=800, height=360, width=640, tau=0.5)
    blocks = typical.streams * typical.frames * patches / 8 / size
    done = amounts(typical, blocks)
    by_frames = {own: done[own] if own == "frames" else 0.0 for own in done}
    by_blocks = {own: done[own] if own in ("blocks", "calls", "commits") else 0.0 for own in done}
    numbers = model.encoder.num_kv_heads * model.encoder.head_dim
    vectors = len(model.summary_layers) * make_summary(spec.summary, model.encoder.head_dim).vectors_per_block
    thumbnail = max(0.0, block_sizes["native"] - block_bytes(model) - 4 * vectors * numbers - TOKEN_BYTES * size)
    return Costs(
        name=name,
        processor="core",
        patches=patches,
        block_tokens=size,
        window_blocks=spec.window_blocks,
        frame_s=sum(cost(rates, by_frames) for rates in fitted.ingest_s.values()) / done["frames"],
        megapixel_s=sum(rates.get("megapixels", 0.0) for rates in fitted.ingest_s.values()),
        token_s=sum(cost(rates, by_blocks) for rates in fitted.ingest_s.values()) / (blocks * size),
        room_streams=None,
        decode_s=fitted.decode_s,
        kv_bytes=float(block_bytes(model)),
        block_bytes=dict(block_sizes),
        summary_bytes=4 * vectors * numbers + TOKEN_BYTES * size + thumbnail,
        vectors=vectors,
        flat_bytes=4.0 * vectors * numbers,
        library_bytes=library_bytes(vectors, numbers),
        question=_question(fitted),
        sources={"all": "measured on this machine in this run, one process with one thread"},
    )


def _question(fitted: Fitted) -> QuestionCosts:
    rates = fitted.ask_s
    return QuestionCosts(
        base_s=sum(own.get("once", 0.0) for own in rates.values()),
        vector_s=sum(own.get("vectors", 0.0) for own in rates.values()),
        context_s=sum(own.get("context", 0.0) for own in rates.values()),
        token_s=rates["more_tokens"]["tokens"],
        token_context_s=rates["more_tokens"]["tokens_context"],
    )


def patches_of(model: VideoModel) -> int:
    """P, of a model whose frames all become one grid."""
    rows, cols = model.vision.grid(360, 640)
    return rows * cols
