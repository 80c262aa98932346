"""The state of an archive in the store's ledger: books of files, of jobs, and of what contents are whose.

files      file_key(uri) -> FileRecord                              jobs     id -> JobRecord
contents   XXH3-128 of a file's bytes -> the stream that has them   totals   id -> JobTotals
stops      id -> that the job is to stop

A tenant has books of its own, and sees no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from cacheflow_ray.archive.records import FileRecord, JobRecord, JobTotals, file_key


class Notes(Protocol):
    """See `memory_store.ledger.Ledger`."""

    def put(self, book: str, entries: Mapping[str, bytes | None]) -> None: ...

    def claim(self, book: str, key: str, payload: bytes) -> bytes: ...

    def get(self, book: str, key: str) -> bytes | None: ...

    def entries(self, book: str) -> dict[str, bytes]: ...


class Books:
    """Of one tenant. Thread-safe, and shared by processes. Raises: StoreError."""

    def __init__(self, notes: Notes, tenant: str = "") -> None:
        names = ("files", "jobs", "contents", "totals", "stops")
        of_whom = f"archive:{tenant}" if tenant else "archive"
        self._notes = notes
        self._files, self._jobs, self._contents, self._totals, self._stops = (f"{of_whom}/{name}" for name in names)

    def file(self, uri: str) -> FileRecord | None:
        payload = self._notes.get(self._files, file_key(uri))
        return None if payload is None else FileRecord.from_bytes(payload)

    def files(self) -> list[FileRecord]:
        """All that were ever found, by uri."""
        records = map(FileRecord.from_bytes, self._notes.entries(self._files).values())
        return sorted(records, key=lambda record: record.uri)

    def put_files(self, records: Iterable[FileRecord]) -> None:
        self._notes.put(self._files, {record.key: record.to_bytes() for record in records})

    def forget_files(self, records: Iterable[FileRecord]) -> None:
        self._notes.put(self._files, {record.key: None for record in records})

    def job(self, job_id: str) -> JobRecord | None:
        payload = self._notes.get(self._jobs, job_id)
        return None if payload is None else JobRecord.from_bytes(payload)

    def jobs(self) -> list[JobRecord]:
        """The newest first."""
        records = map(JobRecord.from_bytes, self._notes.entries(self._jobs).values())
        return sorted(records, key=lambda record: (-record.started_s, record.id))

    def put_job(self, record: JobRecord) -> None:
        self._notes.put(self._jobs, {record.id: record.to_bytes()})

    def forget_job(self, job_id: str) -> None:
        """Its files stay."""
        for book in (self._jobs, self._totals, self._stops):
            self._notes.put(book, {job_id: None})

    def totals(self, job_id: str) -> JobTotals | None:
        payload = self._notes.get(self._totals, job_id)
        return None if payload is None else JobTotals.from_bytes(payload)

    def put_totals(self, job_id: str, totals: JobTotals) -> None:
        self._notes.put(self._totals, {job_id: totals.to_bytes()})

    def stop_job(self, job_id: str) -> None:
        """Whoever runs it sees that it is to stop."""
        self._notes.put(self._stops, {job_id: b"stop"})

    def is_stopped(self, job_id: str) -> bool:
        return self._notes.get(self._stops, job_id) is not None

    def claim_content(self, content: str, stream: str) -> str:
        """The stream that has this content: `stream`, unless another was there before."""
        return self._notes.claim(self._contents, content, stream.encode()).decode()

    def release_content(self, content: str, stream: str) -> None:
        """Give up what was claimed; another's is left."""
        if self._notes.get(self._contents, content) == stream.encode():
            self._notes.put(self._contents, {content: None})
