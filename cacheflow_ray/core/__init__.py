"""The method itself, pure: tensors in, tensors out."""

from cacheflow_ray.core.consensus import MergeRule, Ranking, merge, stop_early, vote_ranking
from cacheflow_ray.core.dropping import DropResult, DropRule, drop, keep_rate, similarity
from cacheflow_ray.core.packing import PackedBlock, Tail, pack
from cacheflow_ray.core.summary import SUMMARIES, MeanKey, RandomGRU, SegmentMeans, Summary, make_summary

__all__ = [
    "SUMMARIES",
    "DropResult",
    "DropRule",
    "MeanKey",
    "MergeRule",
    "PackedBlock",
    "RandomGRU",
    "Ranking",
    "SegmentMeans",
    "Summary",
    "Tail",
    "drop",
    "keep_rate",
    "make_summary",
    "merge",
    "pack",
    "similarity",
    "stop_early",
    "vote_ranking",
]
