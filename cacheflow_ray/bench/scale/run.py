"""One run: measure, fit, predict another workload, and say what large ones would take."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter

import torch

from cacheflow_ray.bench.measure import describe_machine
from cacheflow_ray.bench.results import Target, missed_targets
from cacheflow_ray.bench.scale.costs import Costs
from cacheflow_ray.bench.scale.decoding import CODECS
from cacheflow_ray.bench.scale.dimensions import MODELS
from cacheflow_ray.bench.scale.measured import unit_costs
from cacheflow_ray.bench.scale.model import Needs, plan_archive, plan_live
from cacheflow_ray.bench.scale.profiles import PUBLISHED_MFU, derived, h100
from cacheflow_ray.bench.scale.rounds import Measured, Rounds
from cacheflow_ray.bench.scale.sizes import ScaleSizes
from cacheflow_ray.bench.scale.workloads import Archive, Asking, Live
from cacheflow_ray.bench.service.engine import computing_with
from cacheflow_ray.config import DEFAULT_MODEL, ModelOptions
from cacheflow_ray.errors import UsageError
from cacheflow_ray.models import load_model
from memory_store.records import JsonValue

#: Shares of a GPU's peak at which its number is told beside the one that was asked for.
OTHER_MFU = (0.05, 0.15, 0.3)

HERE = "here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be planned; `mfu`: the share of a GPU's peak that encoding is taken to reach."""

    live: Live = field(default_factory=Live)
    archive: Archive = field(default_factory=lambda: Archive(asking=Asking(per_s=1.0)))
    mfu: float = PUBLISHED_MFU


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One workload: what it takes, by where it runs; `gpus_at_mfu`: encoders of the 7B model at other shares."""

    work: Live | Archive
    needs: Mapping[str, Needs]
    gpus_at_mfu: Mapping[str, int]

    def as_json(self) -> dict[str, JsonValue]:
        return {
            "workload": self.work.as_json(),
            "needs": {name: own.as_json() for name, own in self.needs.items()},
            "gpus_at_mfu": dict(self.gpus_at_mfu),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleReport:
    """Everything one run came to.

    Args:
        model: that was measured here.
        costs: by where; scenarios: by name.
        seconds: of the whole run.
    """

    model: str
    machine: Mapping[str, JsonValue]
    measured: Measured
    costs: Mapping[str, Costs]
    scenarios: Mapping[str, Scenario]
    seconds: float

    @property
    def title(self) -> str:
        """One line: what was predicted."""
        return f"predicted and measured: {self.model} on {self.machine['cores']} cores of {self.machine['cpu']}"

    @property
    def ratios(self) -> dict[str, float]:
        return self.measured.validation.ratios

    @property
    def targets(self) -> dict[str, Target]:
        return self.measured.validation.targets

    def as_json(self) -> dict[str, JsonValue]:
        missed = missed_targets(self.ratios, self.targets)
        fits = self.measured.fitted.as_json() | {
            "contention": self.measured.contention,
            "decoded": [asdict(own) for own in self.measured.decoded],
        }
        return {
            "model": self.model,
            "machine": dict(self.machine),
            "costs": {name: own.as_json() for name, own in self.costs.items()} | {"fits": fits},
            "scenarios": {name: own.as_json() for name, own in self.scenarios.items()},
            "validation": self.measured.validation.as_json()
            | {"keep_sampled": self.measured.keep[0], "keep_measured": self.measured.keep[1]},
            "ratios": dict(self.ratios),
            "targets": {name: str(target) for name, target in self.targets.items()},
            "met": {name: name not in missed for name in self.ratios},
            "missed": list(missed),
            "seconds": self.seconds,
        }


def run_scale_bench(
    *,
    model: str = DEFAULT_MODEL,
    wanted: Wanted | None = None,
    work: Path | None = None,
    sizes: ScaleSizes | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> ScaleReport:
    """Measure on the CPU with one thread, then plan.

    Args:
        wanted: workloads, prices and the GPU's share.
        work: a folder to make videos and stores in; None takes the system's. What is made is deleted.
        note: shows one line of progress.

    Raises:
        UsageError: a workload that cannot be.
    """
    started, wanted = perf_counter(), wanted or Wanted()
    for codec in {wanted.live.video.codec, wanted.archive.video.codec} - CODECS.keys():
        raise UsageError(f"--codec: decoding of {codec!r} is not measured; allowed: {', '.join(CODECS)}")
    folder = Path(mkdtemp(prefix="cacheflow-bench-", dir=work))
    try:
        with computing_with(1):
            loaded = load_model(model, ModelOptions(device="cpu"))
            measured = Rounds(model=loaded, folder=folder, sizes=sizes or ScaleSizes(), note=note).measure()
            machine = describe_machine(torch.device("cpu"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    here = unit_costs(measured.fitted, loaded, f"{loaded.name} here, a core each", block_sizes=measured.block_sizes)
    costs = {HERE: here} | gpu_costs(measured.fitted.decode_s, wanted.mfu)
    return ScaleReport(
        model=loaded.name,
        machine=machine,
        measured=measured,
        costs=costs,
        scenarios=scenarios(costs, wanted),
        seconds=perf_counter() - started,
    )


def gpu_costs(decode_s: Mapping[str, float], mfu: float) -> dict[str, Costs]:
    """Of every model there are sizes of, on an H100."""
    return {name: derived(own, h100(decode_s, mfu)) for name, own in MODELS.items()}


def scenarios(costs: Mapping[str, Costs], wanted: Wanted) -> dict[str, Scenario]:
    """A live and an archive workload on every kind of processor, named after how large they are."""
    decode_s = next(iter(costs.values())).decode_s
    at_mfu = {f"{mfu:g}": gpu_costs(decode_s, mfu)["llava-ov-7b"] for mfu in OTHER_MFU}
    live, archive = wanted.live, wanted.archive
    return {
        f"live_{live.streams}": Scenario(
            work=live,
            needs={name: plan_live(own, live) for name, own in costs.items()},
            gpus_at_mfu={mfu: plan_live(own, live).encoders for mfu, own in at_mfu.items()},
        ),
        f"archive_{_short(archive.hours)}_hours": Scenario(
            work=archive,
            needs={name: plan_archive(own, archive) for name, own in costs.items()},
            gpus_at_mfu={mfu: plan_archive(own, archive).encoders for mfu, own in at_mfu.items()},
        ),
    }


def _short(count: float) -> str:
    """100000 as 100k."""
    return f"{count / 1e3:g}k" if count >= 1e3 and count % 1e3 == 0 else f"{count:g}"
