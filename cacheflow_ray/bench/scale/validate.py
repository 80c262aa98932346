"""Another workload: predicted from the fits and what is known of it beforehand, then compared with what it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cacheflow_ray.bench.results import Target
from cacheflow_ray.bench.scale.asking import AskRun
from cacheflow_ray.bench.scale.calibrating import IngestRun
from cacheflow_ray.bench.scale.fitting import Amounts, cost
from cacheflow_ray.bench.scale.measured import Fitted
from memory_store.records import JsonValue

#: Largest error of a prediction, as a share of what was measured.
ALLOWED = 0.20


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """A prediction and what came of it.

    Args:
        predicted, measured: by the same names; seconds, bytes, milliseconds as the names say. Time is by the clock,
            less what the thread waited for a core that others had; `_core_s` is processor time of all threads.
        clock: of what is measured by the clock, that waiting included.
    """

    predicted: Mapping[str, float]
    measured: Mapping[str, float]
    clock: Mapping[str, float]

    @property
    def errors(self) -> dict[str, float]:
        """|predicted - measured| / measured."""
        return {name: abs(self.predicted[name] - value) / value for name, value in self.measured.items()}

    @property
    def targets(self) -> dict[str, Target]:
        return {error_name(name): Target(sign="<=", bound=ALLOWED) for name in self.measured}

    @property
    def ratios(self) -> dict[str, float]:
        """Errors by their targets' names."""
        return {error_name(name): error for name, error in self.errors.items()}

    def as_json(self) -> dict[str, JsonValue]:
        return {
            "predicted": dict(self.predicted),
            "measured": dict(self.measured),
            "error": dict(self.errors),
            "clock": dict(self.clock),
        }


def error_name(quantity: str) -> str:
    """Of a quantity's error among ratios and targets."""
    return f"{quantity}_error"


def predict(fitted: Fitted, ingest: Amounts, ask: Amounts) -> dict[str, float]:
    """What an ingest and a question about it take, from what they do."""
    return {
        "ingest_s": fitted.ingest_seconds(ingest),
        "ingest_core_s": fitted.core_seconds(ingest),
        "store_bytes": cost(fitted.disk_bytes, ingest),
        "question_ms": 1e3 * fitted.ask_seconds(ask),
    }


def compare(predicted: Mapping[str, float], ingest: IngestRun, ask: AskRun) -> Validation:
    """Beside what they took."""
    measured = {
        "ingest_s": ingest.own_s,
        "ingest_core_s": ingest.core_s,
        "store_bytes": float(ingest.disk_bytes),
        "question_ms": 1e3 * ask.own_s,
    }
    clock = {"ingest_s": ingest.clock_s, "question_ms": 1e3 * ask.clock_s}
    return Validation(predicted=predicted, measured=measured, clock=clock)
