"""The benchmarks by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cacheflow_ray.errors import BadAnnotations, UsageError
from cacheflow_ray.eval.benchmark import by_video
from cacheflow_ray.eval.benchmark.ovo import OVO_FILES, load_ovo
from cacheflow_ray.eval.benchmark.questions import Mode, Question
from cacheflow_ray.eval.benchmark.streamingbench import GROUPS, STREAMINGBENCH_FILES, load_streamingbench


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A published benchmark.

    Args:
        title: as its authors write it.
        mode: how it is asked unless told otherwise: after the whole video, or when the stream reaches the question.
        is_open: answers are free words, which a judge compares.
        load: its questions from its folder (or annotation file); raises BadAnnotations.
        files: annotation files that are looked for, the first that is there being taken.
        answers_file: also write a q_uid,answer table, for a server that alone knows the answers.
    """

    title: str
    mode: Mode
    load: Callable[[Path], Iterator[Question]]
    files: tuple[str, ...]
    is_open: bool = False
    answers_file: bool = False


_STREAMINGBENCH = (*(f"questions_{part}.json" for part in GROUPS), *STREAMINGBENCH_FILES)

BENCHMARKS: dict[str, Benchmark] = {
    "qaego4d": Benchmark(
        title="QAEgo4D-MC", mode="offline", load=by_video.load_qaego4d, files=by_video.QAEGO4D_FILES
    ),
    "mlvu": Benchmark(title="MLVU", mode="offline", load=by_video.load_mlvu, files=by_video.MLVU_FILES),
    "egoschema": Benchmark(
        title="EgoSchema", mode="offline", load=by_video.load_egoschema, files=by_video.EGOSCHEMA_FILES,
        answers_file=True,
    ),
    "activitynet-qa": Benchmark(
        title="ActivityNet-QA", mode="offline", load=by_video.load_activitynet, files=by_video.ACTIVITYNET_FILES,
        is_open=True,
    ),
    "rvs-ego": Benchmark(
        title="RVS-Ego", mode="streaming", load=by_video.load_rvs_ego, files=by_video.RVS_EGO_FILES, is_open=True
    ),
    "rvs-movie": Benchmark(
        title="RVS-Movie", mode="streaming", load=by_video.load_rvs_movie, files=by_video.RVS_MOVIE_FILES, is_open=True
    ),
    "ovo-bench": Benchmark(title="OVO-Bench", mode="streaming", load=load_ovo, files=OVO_FILES),
    "streamingbench": Benchmark(
        title="StreamingBench", mode="streaming", load=load_streamingbench, files=_STREAMINGBENCH
    ),
}  # fmt: skip


def benchmark_named(name: str) -> Benchmark:
    """Raises UsageError listing the names there are."""
    if name not in BENCHMARKS:
        raise UsageError(f"no benchmark {name!r}: use one of {', '.join(BENCHMARKS)}", benchmark=name)
    return BENCHMARKS[name]


def load_questions(name: str, place: Path, limit: int | None = None) -> list[Question]:
    """The first `limit` questions of a benchmark; None takes all.

    Args:
        place: its folder, or its annotation file.

    Raises:
        UsageError: no such benchmark.
        BadAnnotations: a file or video is missing, a record is not as it should be, or two questions have one id.
    """
    questions = list(islice(benchmark_named(name).load(place), limit))
    if not questions:
        raise BadAnnotations(f"{name}: no questions in {str(place)!r}", path=str(place))
    seen: set[str] = set()
    for question in questions:
        if question.question_id in seen:
            raise BadAnnotations(
                f"{name}: two questions have the id {question.question_id!r}", question=question.question_id
            )
        seen.add(question.question_id)
    return questions
