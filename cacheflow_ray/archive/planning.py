"""What a run has to do: of what was found, what is new, changed, unfinished, or worth another try."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

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
) -> list[FileRecord]:
    """A record for every file found; those to be indexed are PENDING. Nothing is written.

    What is done stays done unless the file's size or time of change differs. What failed stays failed, unless that
    may pass, the file has changed, or `retry`.

    Args:
        known: records by uri.
        labels: of all streams; a file's own come first.
    """
    names = {record.stream: record.uri for record in known.values()}
    done = {record.content for record in known.values() if record.state is FileState.DONE}
    plan = []
    for own in found:
        before = known.get(own.uri)
        size, modified_s = facts(own.uri)
        record = before or FileRecord(uri=own.uri, stream=_stream(own, names), job=job)
        names[record.stream] = own.uri
        changed = before is None or (size, modified_s) != (before.size, before.modified_s)
        record = replace(record, job=job, size=size, modified_s=modified_s)
        if changed:
            record = replace(record, labels=dict(labels or {}) | dict(own.labels), start=own.start)
        if own.is_video is False:
            record = replace(record, state=FileState.SKIPPED, reason=NO_VIDEO)
        elif changed or _is_to_do(record, done, retry):
            record = replace(record, state=FileState.PENDING, reason="", transient=False)
        plan.append(record)
    return plan


def to_do(records: Iterable[FileRecord]) -> list[FileRecord]:
    """The largest first: what is begun last then ends soon."""
    return sorted(
        (record for record in records if record.state is FileState.PENDING),
        key=lambda record: (-(record.size or 0), record.uri),
    )


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


def _stream(found: Found, taken: Mapping[str, str]) -> str:
    """A name no other file's stream has: of its folders and its own, marked with its uri where another has that."""
    if found.is_named:
        return found.name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", found.name).strip("-._") or "video"
    name = name[-_MOST_CHARACTERS:].strip("-._")
    if taken.get(name, found.uri) == found.uri:
        return name
    mark = "-" + xxh3_64_hexdigest(found.uri.encode())[:8]
    return name[: _MOST_CHARACTERS - len(mark)] + mark
