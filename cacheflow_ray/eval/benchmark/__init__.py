"""Published benchmarks, run as their papers do: loaded, asked, scored, and set beside what was published.

catalogue   the benchmarks; their loaders: by_video, ovo, streamingbench (on records, prompts, questions)
evaluate    one evaluation: run (on methods, videos) -> answers -> verdicts (scoring, judge) -> report, render
"""

from cacheflow_ray.eval.benchmark.catalogue import BENCHMARKS, Benchmark, load_questions
from cacheflow_ray.eval.benchmark.evaluate import EvalJob, EvalOptions, Watchers, evaluate
from cacheflow_ray.eval.benchmark.judge import Judge
from cacheflow_ray.eval.benchmark.methods import METHODS
from cacheflow_ray.eval.benchmark.report import EvalReport

__all__ = [
    "BENCHMARKS",
    "METHODS",
    "Benchmark",
    "EvalJob",
    "EvalOptions",
    "EvalReport",
    "Judge",
    "Watchers",
    "evaluate",
    "load_questions",
]
