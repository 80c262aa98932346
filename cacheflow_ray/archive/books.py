"""The state of an archive in the store's ledger: one book of files, one of jobs, one of what contents are whose.

files      file_key(uri) -> FileRecord       jobs   id -> JobRecord
contents   XXH3-128 of a file's bytes -> the stream that has them
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from cacheflow_ray.archive.records import FileRecord, JobRecord, file_key

_FILES, _JOBS, _CONTENTS = "archive/files", "archive/jobs", "archive/contents"


class Notes(Protocol):
    """See `memory_store.ledger.Ledger`."""

    def put(self, book: str, entries: Mapping[str, bytes | None]) -> None: ...

    def claim(self, book: str, key: str, payload: bytes) -> bytes: ...

    def get(self, book: str, key: str) -> bytes | None: ...

    def entries(self, book: str) -> dict[str, bytes]: ...


class Books:
    """Thread-safe, and shared by processes. Raises: StoreError."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def file(self, uri: str) -> FileRecord | None:
        payload = self._notes.get(_FILES, file_key(uri))
        return None if payload is None else FileRecord.from_bytes(payload)

    def files(self) -> list[FileRecord]:
        """All that were ever found, by uri."""
        records = map(FileRecord.from_bytes, self._notes.entries(_FILES).values())
        return sorted(records, key=lambda record: record.uri)

    def put_files(self, records: Iterable[FileRecord]) -> None:
        self._notes.put(_FILES, {record.key: record.to_bytes() for record in records})

    def forget_files(self, records: Iterable[FileRecord]) -> None:
        self._notes.put(_FILES, {record.key: None for record in records})

    def job(self, job_id: str) -> JobRecord | None:
        payload = self._notes.get(_JOBS, job_id)
        return None if payload is None else JobRecord.from_bytes(payload)

    def jobs(self) -> list[JobRecord]:
        """The newest first."""
        records = map(JobRecord.from_bytes, self._notes.entries(_JOBS).values())
        return sorted(records, key=lambda record: (-record.started_s, record.id))

    def put_job(self, record: JobRecord) -> None:
        self._notes.put(_JOBS, {record.id: record.to_bytes()})

    def claim_content(self, content: str, stream: str) -> str:
        """The stream that has this content: `stream`, unless another was there before."""
        return self._notes.claim(_CONTENTS, content, stream.encode()).decode()

    def release_content(self, content: str, stream: str) -> None:
        """Give up what was claimed; another's is left."""
        if self._notes.get(_CONTENTS, content) == stream.encode():
            self._notes.put(_CONTENTS, {content: None})
