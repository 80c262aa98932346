"""How a run goes, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cacheflow_ray.archive.meter import Counts
from cacheflow_ray.archive.records import FileRecord, FileState, JobRecord, JobTotals, Trouble

States = Mapping[FileState, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexProgress:
    """A run under way.

    Args:
        states: its files, by how far they are.
        counts: what this run has got through.
        elapsed_s: from the beginning of its first file to the end of the last so far.
        left: the share of the bytes to be read that is still to come, 0 to 1.
    """

    job: str
    states: States
    counts: Counts
    elapsed_s: float
    left: float

    @property
    def time_left_s(self) -> float | None:
        """At the pace so far; None: it cannot be told yet."""
        done = 1 - self.left
        return self.elapsed_s * self.left / done if done > 0 and self.elapsed_s > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport:
    """A run that is over.

    Args:
        files: of the run, by state; those that were done before count as done.
        already_done: of these, done before.
        troubles: files that failed, were skipped for a reason other than their name, or could be decoded in part.
        elapsed_s: of the run; busy_s: of it, from the beginning of its first file to the end of the last.
        counts: what it got through; video_hours_per_hour, frames_per_s: of busy_s.
        decode_utilisation: threads that were decoding, on average; encode_utilisation: encoders that were at work.
    """

    job: JobRecord
    files: dict[str, int]
    already_done: int
    troubles: tuple[Trouble, ...]
    counts: Counts
    elapsed_s: float
    busy_s: float
    video_hours_per_hour: float
    frames_per_s: float
    decode_utilisation: float
    encode_utilisation: float


def tally(records: Iterable[FileRecord]) -> dict[FileState, int]:
    """Every state with how many there are."""
    counted = Counter(record.state for record in records)
    return {state: counted[state] for state in FileState}


def troubles_of(records: Iterable[FileRecord], silent: str) -> tuple[Trouble, ...]:
    """`silent`: a reason that is nobody's trouble."""
    found = []
    for record in records:
        reason = record.reason or (record.warning if record.state is FileState.DONE else None)
        if reason and reason != silent:
            found.append(Trouble(uri=record.uri, state=record.state, reason=reason))
    return tuple(found)


def progress_of(job_id: str, totals: JobTotals) -> IndexProgress:
    """Of a job under way."""
    return IndexProgress(
        job=job_id, states=totals.files, counts=totals.counts, elapsed_s=totals.busy_s, left=totals.left
    )


def report_of(job: JobRecord, totals: JobTotals) -> IndexReport:
    """Of a job that is over."""
    counts, seconds = totals.counts, max(totals.busy_s, 1e-9)
    return IndexReport(
        job=job,
        files={state.value: count for state, count in totals.files.items()},
        already_done=totals.already_done,
        troubles=totals.troubles,
        counts=counts,
        elapsed_s=(job.ended_s or job.started_s) - job.started_s,
        busy_s=totals.busy_s,
        frames_per_s=counts.frames / seconds,
        video_hours_per_hour=counts.video_s / seconds,
        decode_utilisation=counts.decode_s / seconds,
        encode_utilisation=counts.encode_s / seconds,
    )
