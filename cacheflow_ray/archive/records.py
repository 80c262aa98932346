"""What is kept of every file of an archive, and of every job that went through it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

from xxhash import xxh3_128_hexdigest

from cacheflow_ray.archive.meter import Counts


class FileState(StrEnum):
    """How far a file is.

    PENDING: found, and to be indexed. RUNNING: some process has it, or had when it died. DONE: all of it that can be
    decoded is in its stream. FAILED: it cannot be indexed, or not now. SKIPPED: there is nothing of its own to index.
    """

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


class JobState(StrEnum):
    """How far a job is. A job that is RUNNING and whose process is gone was interrupted: run it again to go on.

    FAILED: the job itself could not go on; files that fail do not fail it.
    """

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class _Json:
    """A dataclass kept as JSON; what a newer version added to it is left out."""

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), ensure_ascii=False).encode()  # type: ignore[call-overload]

    @classmethod
    def from_bytes(cls, payload: bytes) -> Self:
        values: dict[str, Any] = json.loads(payload)
        known = {own.name for own in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in values.items() if name in known})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord(_Json):
    """One file.

    Args:
        uri: absolute path or address.
        stream: its stream's name.
        job: that touched it last.
        reason: why it failed or was skipped.
        transient: it failed for something that may pass, and the next run tries it again.
        attempts: how often it was begun.
        labels, start: for its stream; `start` is when it was recorded, as the manifest says it.
        size: bytes; modified_s: Unix time; None where they are not known.
        content: XXH3-128 of its bytes, once they were read; hexadecimal.
        video_s: seconds of video that were indexed.
        took_s: seconds from its (last) beginning to its end.
        warning: what was noted of a file that could be decoded in part.
    """

    uri: str
    stream: str
    job: str
    state: FileState = FileState.PENDING
    reason: str = ""
    transient: bool = False
    attempts: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    start: str = ""
    size: int | None = None
    modified_s: float | None = None
    content: str = ""
    frames: int = 0
    tokens_seen: int = 0
    tokens_kept: int = 0
    blocks: int = 0
    video_s: float = 0.0
    took_s: float = 0.0
    warning: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", FileState(self.state))

    @property
    def key(self) -> str:
        return file_key(self.uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord(_Json):
    """One run over an archive.

    Args:
        sources: what it was given.
        pid, host: of the process that runs it.
        started_s, ended_s: Unix time.
        is_served: an actor of the service runs it.
        error, error_kind: why it FAILED, and the name of what was raised ("": nothing that was thought of).
    """

    id: str
    sources: tuple[str, ...]
    state: JobState = JobState.RUNNING
    pid: int = 0
    host: str = ""
    started_s: float = 0.0
    ended_s: float | None = None
    is_served: bool = False
    error: str = ""
    error_kind: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", JobState(self.state))
        object.__setattr__(self, "sources", tuple(self.sources))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A file that is not in the archive, or not all of it, and why."""

    uri: str
    state: FileState
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", FileState(self.state))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTotals(_Json):
    """What a job has got through, noted while it runs; of all its processes, where it was killed and went on.

    Args:
        files: of the job, by state; those that were done before count as done.
        already_done: of these, done before.
        busy_s: from the beginning of its first file to the end of the last so far.
        left: the share of the bytes to be read that is still to come, 0 to 1.
        troubles: the first of them, once it is over.
    """

    files: Mapping[FileState, int] = field(default_factory=dict)
    already_done: int = 0
    counts: Counts = field(default_factory=Counts)
    busy_s: float = 0.0
    left: float = 1.0
    troubles: tuple[Trouble, ...] = ()

    def __post_init__(self) -> None:
        counts, troubles = self.counts, self.troubles
        object.__setattr__(self, "files", {FileState(state): count for state, count in self.files.items()})
        object.__setattr__(self, "counts", Counts(**counts) if isinstance(counts, dict) else counts)
        made = (Trouble(**own) if isinstance(own, dict) else own for own in troubles)
        object.__setattr__(self, "troubles", tuple(made))


def file_key(uri: str) -> str:
    """What a file is kept under; an address may be longer than a key."""
    return xxh3_128_hexdigest(uri.encode())
