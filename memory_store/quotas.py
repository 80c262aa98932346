"""How much a tenant's streams may hold: refused above the quota, and taken again once enough has been let go."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from memory_store import catalog
from memory_store.blobs import Snapshot
from memory_store.catalog import StreamEntry
from memory_store.codec import Buffer
from memory_store.errors import CorruptRecord, InvalidRecord, QuotaExceeded
from memory_store.records import Commit
from memory_store.values import decode_json, encode_json

_KEY = b"quota"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Args: max_bytes: of a tenant's streams together; release: once refused, blocks are taken again below this share.

    Raises:
        InvalidRecord: negative bytes, or a share outside 0..1.
    """

    max_bytes: int
    release: float = 0.95

    def __post_init__(self) -> None:
        if self.max_bytes < 0 or not 0 < self.release <= 1:
            raise InvalidRecord(
                f"a quota of {self.max_bytes} bytes with release at {self.release} is not possible: give bytes from 0 "
                "on and a share in 0..1"
            )


def put_quota(snapshot: Snapshot, tenant: str, quota: Quota | None) -> None:
    key = _KEY + tenant.encode()
    if quota is None:
        snapshot.delete("meta", key)
    else:
        snapshot.put("meta", key, encode_json(b"QUOT", key, asdict(quota)))


def all_quotas(snapshot: Snapshot) -> dict[str, Quota]:
    """By tenant. Raises: CorruptRecord."""

    def made(key: bytes, value: Buffer) -> tuple[str, Quota]:
        return decode_json(b"QUOT", key, value, lambda fields: (key[len(_KEY) :].decode(), Quota(**fields)))

    return dict(made(key, value) for key, value in snapshot.scan("meta", _KEY))


class Held(NamedTuple):
    """What a stream holds, and how many blocks it has had: those below are stored already."""

    tenant: str
    num_bytes: int
    num_blocks: int


class Usage:
    """What each tenant holds, kept in memory beside the quotas; commits under way are not in it yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._quotas: dict[str, Quota] = {}
        self._streams: dict[str, Held] = {}
        self._refused: set[str] = set()

    def load(self, snapshots: Iterable[Snapshot], quotas: dict[str, Quota]) -> None:
        """Count anew; nothing is counted while there is no quota."""
        streams: dict[str, Held] = {}
        for snapshot in snapshots if quotas else ():
            for entry in catalog.all_entries(snapshot):
                with contextlib.suppress(CorruptRecord):  # verify tells; the others still count
                    streams[entry.record.stream_id] = _held(snapshot, entry)
        with self._lock:
            self._quotas, self._streams = dict(quotas), streams
            self._refused &= set(quotas)

    def of(self, tenant: str) -> int:
        """Bytes held."""
        with self._lock:
            return sum(held.num_bytes for held in self._streams.values() if held.tenant == tenant)

    def check(self, commits: Sequence[Commit]) -> None:
        """Raises: QuotaExceeded: the blocks do not fit. A commit without blocks always does."""
        if not self._quotas:
            return
        new: dict[str, int] = {}
        for commit in commits:
            held = self._streams.get(commit.stream_id, Held("", 0, 0))
            fresh = (block for block in commit.blocks if block.block_idx >= held.num_blocks)
            new[held.tenant] = new.get(held.tenant, 0) + sum(block.kv.nbytes + block.summary.nbytes for block in fresh)
        for tenant, size in new.items():
            quota = self._quotas.get(tenant)
            if quota is not None and size:
                self._check(tenant, quota, self.of(tenant) + size)

    def _check(self, tenant: str, quota: Quota, wanted: int) -> None:
        share = quota.release if tenant in self._refused else 1.0
        if wanted <= share * quota.max_bytes:
            self._refused.discard(tenant)
            return
        self._refused.add(tenant)
        raise QuotaExceeded(
            f"tenant {tenant!r} would hold {wanted:,} bytes of the {quota.max_bytes:,} it may: delete streams or limit "
            "what is kept of them",
            tenant=tenant,
            max_bytes=quota.max_bytes,
        )

    def note(self, held: dict[str, Held], *, new: bool = False) -> None:
        """Streams as they are after a commit: stream_id -> tenant and bytes; `new`: unless they are known."""
        if self._quotas:
            with self._lock:
                self._streams = held | self._streams if new else self._streams | held

    def forget(self, stream_id: str) -> None:
        with self._lock:
            self._streams.pop(stream_id, None)


def _held(snapshot: Snapshot, entry: StreamEntry) -> Held:
    head = catalog.get_head(snapshot, entry)
    stats = head.stats if head else None
    return Held(entry.record.tenant, stats.num_bytes if stats else 0, stats.num_blocks if stats else 0)


def held_by(snapshot: Snapshot, stream_ids: Iterable[str]) -> dict[str, Held]:
    """stream_id -> tenant and bytes, of streams that exist."""
    entries = (catalog.find_entry(snapshot, stream_id) for stream_id in stream_ids)
    return {entry.record.stream_id: _held(snapshot, entry) for entry in entries if entry}
