"""Text turns of follow-up sessions, kept until they expire."""

from __future__ import annotations

import itertools
import math
import struct

from memory_store.blobs import Snapshot
from memory_store.codec import Buffer
from memory_store.errors import CorruptRecord, InvalidRecord
from memory_store.values import decode, seal

_EXPIRY = struct.Struct("<d")
_EXPIRY_KEY = struct.Struct(">Q")
_MAX_ID_BYTES = 400


def check_session(session_id: str, expires_s: float) -> None:
    """Raises: InvalidRecord."""
    if not 0 < len(session_id.encode()) <= _MAX_ID_BYTES:
        raise InvalidRecord(f"a session id must have 1 to {_MAX_ID_BYTES} bytes", session_id=session_id)
    if math.isnan(expires_s):
        raise InvalidRecord(f"session {session_id!r} expires at NaN: give a time in seconds", session_id=session_id)


def put_turns(snapshot: Snapshot, session_id: str, payload: bytes, expires_s: float, now_s: float) -> None:
    """Store the session's turns in place of earlier ones, and drop every session that has expired by `now_s`."""
    remove_turns(snapshot, session_id)
    sweep(snapshot, now_s)
    key = b"s" + session_id.encode()
    snapshot.put("turns", key, seal(b"TURN", key, _EXPIRY.pack(expires_s) + payload))
    snapshot.put("turns", _expiry_key(session_id.encode(), expires_s), b"")


def sweep(snapshot: Snapshot, now_s: float) -> None:
    """Drop every session that has expired by `now_s`."""
    keys = (key for key, _ in snapshot.scan("turns", b"e"))
    for key in list(itertools.takewhile(lambda key: key < b"e" + _sortable(now_s), keys)):
        snapshot.delete("turns", key)
        snapshot.delete("turns", b"s" + key[1 + _EXPIRY_KEY.size :])


def get_turns(snapshot: Snapshot, session_id: str, now_s: float) -> bytes | None:
    found = _stored(snapshot, session_id.encode())
    return None if found is None or found[0] <= now_s else found[1]


def is_whole(key: bytes, value: Buffer) -> bool:
    """Whether a session's value can be read."""
    try:
        decode(b"TURN", key, value, _read)
    except CorruptRecord:
        return False
    return True


def remove_turns(snapshot: Snapshot, session_id: str) -> None:
    _remove(snapshot, session_id.encode())


def remove_turns_of_stream(snapshot: Snapshot, stream_id: str) -> None:
    """Drop the sessions named `stream_id/...`; a '/' cannot be part of a stream's name."""
    for key in [key for key, _ in snapshot.scan("turns", b"s" + stream_id.encode() + b"/")]:
        _remove(snapshot, key[1:])


def _remove(snapshot: Snapshot, name: bytes) -> None:
    """Args: name: a session id's bytes; a damaged key may hold any."""
    try:
        found = _stored(snapshot, name)
    except CorruptRecord:  # the note of its expiry goes when that comes
        found = None
        snapshot.delete("turns", b"s" + name)
    if found:
        snapshot.delete("turns", _expiry_key(name, found[0]))
        snapshot.delete("turns", b"s" + name)


def _stored(snapshot: Snapshot, name: bytes) -> tuple[float, bytes] | None:
    key = b"s" + name
    value = snapshot.get("turns", key)
    return None if value is None else decode(b"TURN", key, value, _read)


def _read(payload: memoryview) -> tuple[float, bytes]:
    """When the session expires, and its turns."""
    expires_s: float = _EXPIRY.unpack_from(payload)[0]
    if math.isnan(expires_s):
        raise ValueError("no session expires at NaN")
    return expires_s, bytes(payload[_EXPIRY.size :])


def _sortable(time_s: float) -> bytes:
    """Milliseconds, big-endian, so that keys sort by time."""
    return _EXPIRY_KEY.pack(int(min(max(time_s, 0.0), 2.0**53) * 1000))


def _expiry_key(name: bytes, expires_s: float) -> bytes:
    return b"e" + _sortable(expires_s) + name
