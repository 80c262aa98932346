"""Fuzz target: the small sealed values, each read as the store reads it; the kind a value begins with chooses how."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from memory_store import (
    CorruptRecord,
    Quota,
    Retention,
    StreamState,
    TimeRange,
    catalog,
    committing,
    lookup,
    quotas,
    retention,
    sessions,
    values,
)
from memory_store.blobs import Snapshot
from memory_store.catalog import StreamEntry, StreamHead
from memory_store.codec import KvLayout
from memory_store.records import StreamStats
from memory_store.values import encode_json, encode_state, seal
from tests.memory_store.conformance import BFLOAT16, make_record, make_tokens
from tests.memory_store.faults.fuzz_json import changed_json
from tests.memory_store.faults.fuzzing import Target

_ENTRY = StreamEntry(number=7, record=make_record())
_KEY = _ENTRY.block_key(2)
_SEALED_BYTES = 16


class Tables:
    """What is read of a `Snapshot`, for a value in each table."""

    def __init__(self, **values: bytes) -> None:
        self.values = values

    def get(self, table: str, key: bytes) -> memoryview | None:
        return memoryview(self.values[table]) if table in self.values else None

    def scan(self, table: str, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, memoryview]]:
        yield prefix + b"acme", memoryview(self.values[table])

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.values[table] = value


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of value. exact: what is read is written as the very same bytes, and not just read as the same again."""

    table: str
    key: bytes
    example: Any
    read: Callable[[Snapshot], Any]
    write: Callable[[Any], bytes]
    exact: bool = True


def _put(table: str, put: Callable[[Snapshot, Any], None]) -> Callable[[Any], bytes]:
    """The value that `put` puts into the table."""

    def write(example: Any) -> bytes:
        tables = Tables()
        put(cast(Snapshot, tables), example)
        return bytes(tables.values[table])

    return write


_HEAD = StreamHead(
    stats=StreamStats(num_blocks=9, num_tokens=36, num_bytes=4000, start_s=0.5, end_s=9.25, num_deleted=2),
    layout=KvLayout(num_layers=3, num_heads=2, block_size=4, head_dim=8, dtype=BFLOAT16),
    summary_shape=(2, 2, 2, 8),
    live=(range(0, 3), range(5, 9)),
    aged_to=1,
)
_POLICY = Retention(ttl_s=60.5, max_blocks=7, pinned=(TimeRange(start_s=1.0, end_s=2.0), TimeRange()))

KINDS = {
    b"STAT": Kind(
        table="states",
        key=_ENTRY.key,
        example=StreamState(epoch=1, num_blocks=3, payload=bytes(range(40))),
        read=lambda snapshot: committing.get_state(snapshot, _ENTRY),
        write=lambda state: encode_state(_ENTRY.key, state),
    ),
    b"THUM": Kind(
        table="thumbnails",
        key=_KEY,
        example=b"jpeg" * 9,
        read=lambda snapshot: lookup.thumbnail(snapshot, _ENTRY, 2),
        write=lambda jpeg: seal(b"THUM", _KEY, jpeg),
    ),
    b"TOKS": Kind(
        table="tokens",
        key=_KEY,
        example=make_tokens(2),
        read=lambda snapshot: lookup.block_tokens(snapshot, _ENTRY, 2),
        write=lambda tokens: seal(b"TOKS", _KEY, tokens.tobytes()),
    ),
    b"AGED": Kind(
        table="ages",
        key=_KEY,
        example=1.5e9,
        read=lambda snapshot: retention.stored_s(snapshot, _ENTRY, 2),
        write=_put("ages", lambda snapshot, stored_s: retention.put_age(snapshot, _KEY, stored_s)),
    ),
    b"TURN": Kind(
        table="turns",
        key=b"scam/1",
        example=(2.5e9, b"turns" * 5),
        read=lambda snapshot: sessions._stored(snapshot, b"cam/1"),
        write=lambda turns: seal(b"TURN", b"scam/1", np.float64(turns[0]).tobytes() + turns[1]),
    ),
    b"HEAD": Kind(
        table="meta",
        key=_ENTRY.key,
        example=_HEAD,
        read=lambda snapshot: catalog.get_head(snapshot, _ENTRY),
        write=_put("meta", lambda snapshot, head: catalog.put_head(snapshot, _ENTRY, head)),
        exact=False,
    ),
    b"KEEP": Kind(
        table="policies",
        key=_ENTRY.key,
        example=_POLICY,
        read=lambda snapshot: retention.get_policy(snapshot, _ENTRY),
        write=_put("policies", lambda snapshot, policy: retention.put_policy(snapshot, _ENTRY, policy)),
        exact=False,
    ),
    b"GONE": Kind(
        table="absent",
        key=_KEY,
        example=("aged", 4000),
        read=lambda snapshot: retention.absence(snapshot, _ENTRY, 2),
        write=lambda gone: encode_json(b"GONE", _KEY, {"why": gone[0], "num_bytes": gone[1]}),
        exact=False,
    ),
    b"QUOT": Kind(
        table="meta",
        key=b"quotaacme",
        example={"acme": Quota(max_bytes=10**9, release=0.5)},
        read=lambda snapshot: quotas.all_quotas(snapshot),
        write=_put("meta", lambda snapshot, found: quotas.put_quota(snapshot, "acme", found["acme"])),
        exact=False,
    ),
    b"STRM": Kind(
        table="streams",
        key=b"cam",
        example=_ENTRY,
        read=lambda snapshot: catalog.find_entry(snapshot, "cam"),
        write=lambda own: encode_json(b"STRM", b"cam", {"number": own.number, "record": asdict(own.record)}),
        exact=False,
    ),
}


def small_values(_: Path) -> Target:
    return Target(seeds=[kind.write(kind.example) for kind in KINDS.values()], check=_check, mend=_mend)


def unguarded(folder: Path) -> Target:
    """For a process of its own: content is trusted once its checksum is right."""
    values.MALFORMED = ()
    return small_values(folder)


def _check(value: bytes) -> bool:
    kind = KINDS.get(value[:4], KINDS[b"THUM"])
    try:
        found = kind.read(cast(Snapshot, Tables(**{kind.table: value})))
    except CorruptRecord:
        return False
    again = kind.write(found)
    assert again == value or not kind.exact
    assert repr(kind.read(cast(Snapshot, Tables(**{kind.table: again})))) == repr(found)
    return True


def _mend(value: bytes, rng: random.Random) -> bytes:
    """With a right checksum; where it holds JSON, one time in two with something else somewhere in that."""
    name = value[:4] if value[:4] in KINDS else rng.choice(list(KINDS))
    payload = value[_SEALED_BYTES:]
    if not KINDS[name].exact and rng.random() < 0.5:
        payload = changed_json(payload, rng)
    return seal(name, KINDS[name].key, payload)
