"""Files that are either whole or not there: written beside, synced, and renamed."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from memory_store.codec import Buffer

_DRAFT = ".new"


def write_file(path: Path, parts: Sequence[Buffer]) -> None:
    """Put the bytes of `parts` into the file, replacing it; its name outlives a power cut once the folder is synced.

    Raises:
        OSError: the file is as it was.
    """
    draft = path.with_name(path.name + _DRAFT)
    with draft.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def remove_others(path: Path, keep: Collection[str], suffixes: Collection[str]) -> None:
    """Delete the folder's files with one of `suffixes` that are not in `keep`, and drafts that a killed process left.

    Raises:
        OSError
    """
    for file in path.iterdir():
        if file.suffix in (*suffixes, _DRAFT) and file.name not in keep:
            file.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make the names of new and renamed files survive a power cut. Raises: OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
