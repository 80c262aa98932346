"""What a run has to do: of what was found, what is new, changed, unfinished, or worth another try."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from xxhash import xxh3_64_hexdigest

from cacheflow_ray.archive.fetching import facts
from cacheflow_ray.archive.finding import Found
from cacheflow_ray.archive.records import FileRecord, FileState

_MOST_CHARACTERS = 128
NO_VIDEO = "not a video by its name"


def planned(
    found: Sequence[Found],
    known: Mapping[str, FileRecord],
    *,
    job: str,
    labels: Mapping[str, str] | None = None,
    retry: bool = False,
    tenant: str = "",
    refusal: Callable[[Found], str] = lambda _: "",
) -> list[FileRecord]:
    """A record for every file found; those to be indexed are PENDING. Nothing is written.

    What is done stays done unless the file's size or time of change differs. What failed stays failed, unless that
    may pass, the file has changed, or `retry`; a job that goes on after a kill does not retry what it tried.

    Args:
        known: records by uri.
        labels: of all streams; a file's own come first.
        tenant: whose streams they are.
        refusal: why a file must be left alone, or ""; such a file is not even looked at.
    """
    names = {record.stream: record.uri for record in known.values()}
    done = {record.content for record in known.values() if record.state is FileState.DONE}
    plan = []
    for own in found:
        before = known.get(own.uri)
        if before is not None and not before.stream:  # it was refused, and may not be now
            before = None
        retried = retry and before is not None and before.job != job
        if why := refusal(own):
            plan.append(_refused(own, before, job, why))
            continue
        record = before or FileRecord(uri=own.uri, stream=_stream(own, names, tenant), job=job)
        size, modified_s = facts(own.uri)
        names[record.stream] = own.uri
        changed = before is None or (size, modified_s) != (before.size, before.modified_s)
        record = replace(record, job=job, size=size, modified_s=modified_s)
        if changed:
            record = replace(record, labels=dict(labels or {}) | dict(own.labels), start=own.start)
        if own.is_video is False:
            record = replace(record, state=FileState.SKIPPED, reason=NO_VIDEO)
        elif changed or _is_to_do(record, done, retried):
            record = replace(record, state=FileState.PENDING, reason="", transient=False)
        plan.append(record)
    return plan


def failed_before(records: Iterable[FileRecord]) -> list[Found]:
    """Files that failed, as what a run is given that is to try them again."""
    return [
        Found(
            uri=record.uri,
            name=record.stream.rpartition(":")[2] or PurePosixPath(record.uri).stem,
            is_named=bool(record.stream),
            labels=record.labels,
            start=record.start,
        )
        for record in records
        if record.state is FileState.FAILED
    ]


def to_do(records: Iterable[FileRecord]) -> list[FileRecord]:
    """The largest first: what is begun last then ends soon."""
    return sorted(
        (record for record in records if record.state is FileState.PENDING),
        key=lambda record: (-(record.size or 0), record.uri),
    )


def within_quota(plan: Iterable[FileRecord], streams: Collection[str], most: int) -> list[FileRecord]:
    """The plan, but what would make more than `most` streams fails for now. `streams`: that there are."""
    left, kept = most - len(streams), []
    for record in plan:
        if record.state is FileState.PENDING and record.stream not in streams:
            left -= 1
            if left < 0:
                reason = f"max_streams: there may be {most} streams: delete some, and run it again"
                record = replace(record, state=FileState.FAILED, reason=reason, transient=True)
        kept.append(record)
    return kept


def _refused(found: Found, before: FileRecord | None, job: str, why: str) -> FileRecord:
    """What is done stays done; all else fails, without a stream where it has none."""
    record = before or FileRecord(uri=found.uri, stream="", job=job)
    if record.state is FileState.DONE:
        return replace(record, job=job)
    return replace(record, job=job, state=FileState.FAILED, reason=why, transient=False)


def _is_to_do(record: FileRecord, done: Collection[str], retry: bool) -> bool:
    match record.state:
        case FileState.PENDING | FileState.RUNNING:
            return True
        case FileState.FAILED:
            return retry or record.transient
        case FileState.SKIPPED:  # its content was another's, which may be gone by now
            return record.content not in done
        case FileState.DONE:
            return False


def _stream(found: Found, taken: Mapping[str, str], tenant: str) -> str:
    """An id no other file's stream has: of its folders and its own name, marked with its uri where another has that."""
    prefix = f"{tenant}:" if tenant else ""
    if found.is_named:
        return prefix + found.name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", found.name).strip("-._") or "video"
    name = name[-_MOST_CHARACTERS:].strip("-._")
    if taken.get(prefix + name, found.uri) == found.uri:
        return prefix + name
    mark = "-" + xxh3_64_hexdigest(found.uri.encode())[:8]
    return prefix + name[: _MOST_CHARACTERS - len(mark)] + mark
