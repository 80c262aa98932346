"""Names for sources: a content identity that survives a rename, and an address fit to be shown."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit, urlunsplit

import xxhash

_PIECE_BYTES = 1 << 20


def file_identity(file: BinaryIO) -> str:
    """Size and hash of the first and last MiB of a seekable file; leaves it at its start.

    Reading a whole archive only to name it would cost more than decoding some of it; containers keep their index at
    the head or the tail, so two videos alike in size, head and tail are the same video.
    """
    size = file.seek(0, os.SEEK_END)
    digest = xxhash.xxh3_128()
    for offset in (0, max(0, size - _PIECE_BYTES)):
        file.seek(offset)
        digest.update(file.read(_PIECE_BYTES))
    file.seek(0)
    return f"file:{size}:{digest.hexdigest()}"


def folder_identity(paths: Iterable[Path]) -> str:
    """Hash of the names and sizes of the files, in the order given."""
    digest = xxhash.xxh3_128()
    count = 0
    for path in paths:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode(errors="surrogateescape"))
        count += 1
    return f"folder:{count}:{digest.hexdigest()}"


def without_password(address: str) -> str:
    """The address as it may be stored and shown: a camera's user and password are left out."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
