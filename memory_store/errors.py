"""What can go wrong in the store, as one tree.

    StoreError
    ├── InvalidRecord           a value that may not be stored (shape, dtype, name, NaN)
    ├── StreamNotFound          no such stream
    ├── StreamExists            the name is taken by a stream with other immutable fields
    ├── BlockNotFound           no such block in the stream, or no more
    ├── KvDropped               only the block's summary is kept: its KV must be encoded again
    ├── BlockConflict           a block already stored holds other tokens
    ├── FingerprintMismatch     KV of another model (or dtype, prefix, adapter version)
    ├── EpochFenced             the stream has moved to a newer owner
    ├── CorruptRecord           identity or checksum of a stored value does not hold
    ├── UnsupportedFormat       data folder of a newer (or unknown) format version
    ├── QuotaExceeded           the tenant has as much stored as it may have
    ├── StoreLocked             another process writes this data folder
    ├── StoreFull               no space left; what was committed stays readable
    └── StoreUnavailable        the folder cannot be read or written (permissions, missing, closed)

Every message is one line that names the thing and the mend; the ids it speaks of are attributes too.
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        ids: what the error is about (`stream_id`, `block_idx`, `path`, `pid`, ...).
    """

    def __init__(self, message: str, **ids: object) -> None:
        super().__init__(message)
        self.ids = ids

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), str(self), self.ids))


def _rebuild(cls: type[StoreError], message: str, ids: dict[str, object]) -> StoreError:
    return cls(message, **ids)


class InvalidRecord(StoreError):
    """A value that may not be stored."""


class StreamNotFound(StoreError):
    """No stream of that name."""


class StreamExists(StoreError):
    """The name is taken by a stream whose immutable fields differ."""


class BlockNotFound(StoreError):
    """The stream has no such block."""


class KvDropped(StoreError):
    """The block's summary, thumbnail and tokens are kept, its KV is not: re-encode needed.

    Attributes:
        ids: `stream_id`, `block_idxs` (all that were asked for without KV), `why` (block_idx -> "aged" or "corrupt").
    """


class BlockConflict(StoreError):
    """The block is stored already, with other tokens."""


class FingerprintMismatch(StoreError):
    """The stored KV was made by another model."""


class EpochFenced(StoreError):
    """The write came from an owner the stream has moved away from."""


class CorruptRecord(StoreError):
    """A stored value fails its identity or checksum."""


class UnsupportedFormat(StoreError):
    """The data folder has a format version this code does not know."""


class QuotaExceeded(StoreError):
    """The tenant's streams hold as much as they may."""


class StoreLocked(StoreError):
    """Another process writes this data folder."""


class StoreFull(StoreError):
    """No space left on the device."""


class StoreUnavailable(StoreError):
    """The data folder cannot be read or written."""
