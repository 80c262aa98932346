"""Names for sources: a content identity that survives a rename, and an address fit to be shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit, urlunsplit

import xxhash

_PIECE_BYTES = 1 << 20
_CODEC_TAGS = (
    re.compile(rb"hdlr.{8}vide.{0,4096}?stsd.{12}([ -~]{4})", re.DOTALL),
    re.compile(rb"strh.{4}vids([ -~]{4})", re.DOTALL),
    re.compile(rb"\x86.(V_[A-Z0-9/_.-]+)", re.DOTALL),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Size of a file, and its first and last MiB (overlapping in a small file)."""

    num_bytes: int
    head: bytes
    tail: bytes

    @classmethod
    def of(cls, file: BinaryIO) -> Ends:
        """Reads a seekable file's ends and leaves it at its start."""
        num_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(0, num_bytes - _PIECE_BYTES))
        tail = file.read(_PIECE_BYTES)
        file.seek(0)
        head = file.read(_PIECE_BYTES)
        file.seek(0)
        return cls(num_bytes=num_bytes, head=head, tail=tail)

    def identity(self) -> str:
        """Size and hash of the ends.

        Reading a whole archive only to name it would cost more than decoding some of it; containers keep their index at
        the head or the tail, so two videos alike in size, head and tail are the same video.
        """
        digest = xxhash.xxh3_128(self.head)
        digest.update(self.tail)
        return f"file:{self.num_bytes}:{digest.hexdigest()}"

    def video_codec_tag(self) -> str | None:
        """Name of the video codec as the container writes it (mp4/mov, AVI, Matroska), None if it is not found."""
        for pattern in _CODEC_TAGS:
            found = pattern.search(self.head) or pattern.search(self.tail)
            if found is not None:
                return found[1].decode("ascii", errors="replace").strip()
        return None


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
