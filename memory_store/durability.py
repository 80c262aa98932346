"""What a crash can cost, by the store's durability; and the marker by which a shard remembers it was left unsynced."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from memory_store.errors import CorruptRecord
from memory_store.files import sync_folder, write_file

#: How long a `relaxed` store leaves what was committed unsynced.
SYNC_EVERY_S = 1.0


class Durability(StrEnum):
    """When a commit counts as kept. The death of a process loses nothing that was committed, in any of them.

    POWER_SAFE: a power cut loses nothing that was committed either. Every group of commits waits for the disk twice.
    PROCESS_SAFE: a power cut can undo the last group of commits of each shard, and leaves the others whole. Every group
        waits for the disk once.
    RELAXED: a power cut can lose what was committed since the last sync (every SYNC_EVERY_S, and on close) and can
        damage the whole shard. The next open then refuses it, whether it is damaged or not:
        `cacheflow store verify --repair` says and keeps what is whole.
    """

    POWER_SAFE = "power_safe"
    PROCESS_SAFE = "process_safe"
    RELAXED = "relaxed"


def boot_id() -> str:
    """Of the running system: another one after a power cut."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def mark_unsynced(shard: Path) -> None:
    """Say, durably, that from now on only this boot can trust the shard."""
    write_file(shard / "unsynced", [boot_id().encode()])
    sync_folder(shard)


def clear_unsynced(shard: Path) -> None:
    """Once all is synced."""
    if (shard / "unsynced").exists():
        (shard / "unsynced").unlink()
        sync_folder(shard)


def check_synced(shard: Path) -> None:
    """Raises: CorruptRecord: the machine stopped while the shard held what was not synced."""
    try:
        left_by = (shard / "unsynced").read_text().strip()
    except FileNotFoundError:
        return
    if left_by != boot_id() or left_by == "unknown":
        raise CorruptRecord(
            f"{shard} was open with durability relaxed when the machine stopped, and may be damaged: restore it from a "
            f"snapshot, or keep what is whole with cacheflow store verify --repair --data {shard.parent}",
            path=str(shard),
        )
