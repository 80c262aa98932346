"""One run: load the model, measure part after part, gather the ratios."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

from cacheflow_ray.bench.answers import measure_answers
from cacheflow_ray.bench.bench import Bench
from cacheflow_ray.bench.fetching import measure_fetch
from cacheflow_ray.bench.ingesting import measure_encoding, measure_ingest
from cacheflow_ray.bench.measure import describe_machine, measure_ceiling
from cacheflow_ray.bench.questions import measure_questions
from cacheflow_ray.bench.ragged import measure_ragged
from cacheflow_ray.bench.resident import is_supported, measure_resident
from cacheflow_ray.bench.results import Part, Report
from cacheflow_ray.bench.sizes import Sizes, sizes_of
from cacheflow_ray.config import ModelOptions
from cacheflow_ray.errors import UsageError
from cacheflow_ray.models import load_model
from cacheflow_ray.published import published

#: The parts by name, in the order they run.
PARTS: dict[str, Callable[[Bench], Part]] = {
    "fetch": measure_fetch,
    "ragged": measure_ragged,
    "ingest": measure_ingest,
    "encode": measure_encoding,
    "questions": measure_questions,
    "answers": measure_answers,
    "resident": measure_resident,
}


def run_engine_bench(
    preset: str,
    *,
    options: ModelOptions,
    only: Sequence[str] = (),
    work: Path | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Report:
    """Measure a preset.

    Args:
        options: device, dtype and attention.
        only: names of PARTS; none means all.
        work: a folder to make videos and stores in, on the disk that is to be measured; None takes the system's.
            What is made is deleted.
        note: shows a line of progress.

    Raises:
        UsageError: no such preset or part, or too little room in `work`.
        ModelLoadError: no such device.
    """
    unknown = sorted(set(only) - PARTS.keys())
    if unknown:
        raise UsageError(f"no part {unknown[0]!r} to measure: use {', '.join(PARTS)}")
    started = perf_counter()
    note(f"building {preset} with random weights")
    model = load_model(sizes_of(preset, on_accelerator=False).model, options)
    sizes = sizes_of(preset, on_accelerator=model.device.type == "cuda")
    folder = Path(tempfile.mkdtemp(prefix="cacheflow-bench-", dir=work))
    try:
        bench = Bench(model=model, sizes=sizes, folder=folder, note=note)
        note("measuring what the machine can do")
        ceiling = measure_ceiling(model.device, model.dtype)
        skipped = _skipped(sizes, only)
        names = [name for name in PARTS if (not only or name in only) and name not in skipped]
        parts = {name: PARTS[name](bench) for name in names}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Report(
        preset=preset,
        model=model.name,
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        machine=describe_machine(model.device),
        ceiling=ceiling,
        parts=parts,
        skipped=skipped,
        published=published(preset),
        seconds=perf_counter() - started,
    )


def _skipped(sizes: Sizes, only: Sequence[str]) -> dict[str, str]:
    """Parts that do not run, and why."""
    skipped = {name: reason for name, reason in sizes.on_request.items() if name not in only}
    if not is_supported():
        skipped["resident"] = "this system does not tell anonymous memory from mapped"
    return skipped
