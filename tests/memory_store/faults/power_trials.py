"""The two processes of a power loss: one works while all it writes is recorded, one opens what is left."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memory_store import Durability, Store, StoreError
from tests.memory_store.faults.power import PAGE, SECTOR, Disk, History, is_commit, survivors
from tests.memory_store.faults.recorder import Barrier, Event, Mark, Recorder, record_lmdb
from tests.memory_store.faults.workload import (
    Held,
    WrongDataError,
    check_blocks,
    check_kv,
    check_stream,
    commit_of,
    forked,
    plan,
    work,
)

_END = Mark(("end", "", None))
NAMES = ("a-small", "b-large", "c-small", "d-large")


def record(folder: str, events: str, durability: str, shards: int, steps: int, seed: int) -> None:
    """Work on a store in several threads, twice opened and closed, and save all events."""
    recorder = record_lmdb()
    for round_idx in range(2):
        with Store.open(folder, durability=Durability(durability), shards=shards, map_size=1 << 18) as store:
            recorder.mark(("opened", "", None))
            threads = [
                threading.Thread(target=_work, args=(store, f"{round_idx}{name}", steps, seed, recorder))
                for name in NAMES
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        recorder.mark(("closed", "", None))
    recorder.save(Path(events))


def _work(store: Store, stream_id: str, steps: int, seed: int, recorder: Recorder) -> None:
    work(store, stream_id, plan(f"{stream_id}/{seed}", steps), recorder.mark)


@dataclass(frozen=True, slots=True)
class Image:
    """What a power cut may leave: the data file of each shard, by its folder's name."""

    cut: int
    survived: str
    files: dict[str, bytes]
    history: History
    since: int | None
    stage: str  # "new", "opened" or "closed"


def images(events: list[Event], durability: Durability, cuts: int, per_cut: int, seed: int) -> Iterator[Image]:
    """What `cuts` instants may leave behind, `per_cut` images each; the same ones for the same arguments."""
    rng = random.Random(seed)
    chosen = {len(events), *_instants(events, cuts - 1, rng)}
    disks, history, clock = _Disks(), History(), _Clock(durability)
    for at, event in enumerate([*events, _END]):
        if at in chosen:
            for name, files in disks.after_cut(rng, per_cut):
                yield Image(at, name, files, history, clock.since, clock.stage)
        clock.apply(event)
        if isinstance(event, Mark):
            history.apply(event, clock.now)
        disks.apply(event)


class _Disks:
    """The files as they go by, once of pages and once of sectors."""

    def __init__(self) -> None:
        self._of_file: dict[str, tuple[Disk, Disk]] = {}

    def apply(self, event: Event) -> None:
        file = "" if isinstance(event, Mark) else event.file
        if file and file not in self._of_file:
            self._of_file[file] = Disk(unit=PAGE), Disk(unit=SECTOR)
        for name, disks in self._of_file.items():
            for disk in disks:
                disk.apply(event if file in (name, "") else Mark("of another file"))

    def after_cut(self, rng: random.Random, count: int) -> Iterator[tuple[str, dict[str, bytes]]]:
        """`count` of the ways in which the cut may go: for sure, none and all of the unsynced writes survive."""
        which, whole_size = rng.randrange(2), rng.random() < 0.5
        chosen = {file: disks[which] for file, disks in self._of_file.items()}
        ways = {file: dict(survivors(rng, list(disk.pending))) for file, disk in chosen.items()}
        names = list(next(iter(ways.values()), {"none": None, "all": None}))
        for name in [*names[:2], *rng.sample(names[2:], min(count, len(names)) - 2)]:
            files = {file: disk.after_cut(ways[file][name], whole_size=whole_size) for file, disk in chosen.items()}
            yield name, {Path(file).parent.name: data for file, data in files.items()}


class _Clock:
    """Counts what bounds a loss: transactions when process_safe, events when relaxed; `since`: what may be lost."""

    def __init__(self, durability: Durability) -> None:
        self._durability = durability
        self._begun: dict[int, int] = {}
        self._events = 0
        self.now = 0
        self.since: int | None = None
        self.stage = "new"

    def apply(self, event: Event) -> None:
        self._events += 1
        if isinstance(event, Mark) and event.what[0] in ("opened", "closed"):
            self.stage = event.what[0]
        if self._durability is Durability.PROCESS_SAFE:
            self.now += is_commit(event)
            self.since = self.now
        elif self._durability is Durability.RELAXED:
            self.now = self._events
            self._apply_sync(event)

    def _apply_sync(self, event: Event) -> None:
        if isinstance(event, Barrier) and not event.end:
            self._begun[event.number] = self._events
        elif isinstance(event, Barrier):
            self.since = max(self.since or 0, self._begun[event.number])
        elif self.since is None:
            self.since = 0


def _instants(events: list[Event], cuts: int, rng: random.Random) -> list[int]:
    """Half of them anywhere, half just before or after a transaction begins to count or a barrier ends."""
    turning = [at for at, event in enumerate(events) if is_commit(event) or (isinstance(event, Barrier) and event.end)]
    near = {min(len(events) - 1, at + late) for at in turning for late in (0, 1)}
    some = set(rng.sample(sorted(near), min(len(near), cuts // 2)))
    return [*some, *rng.sample(sorted(set(range(len(events))) - some), cuts - len(some))]


def try_images(
    first: int, scratch: str, events: str, durability: str, marker: bool, cuts: int, per_cut: int, seed: int
) -> None:
    """Open every image from number `first` on, and print what is there. `marker`: with the one a relaxed store left."""
    recorded, mode = pickle.loads(Path(events).read_bytes()), Durability(durability)
    for number, image in enumerate(images(recorded, mode, cuts, per_cut, seed)):
        if number >= first:
            lay_out(Path(scratch), image, marker=marker and mode is Durability.RELAXED and image.stage == "opened")
            print(json.dumps(_opened(Path(scratch), image)), flush=True)


def lay_out(folder: Path, image: Image, *, marker: bool) -> None:
    """A data folder as the machine finds it when it starts again."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if image.stage != "new":
        (folder / "manifest.json").write_text(json.dumps({"format": 2, "shards": len(image.files)}))
    for shard, data in image.files.items():
        (folder / shard).mkdir()
        (folder / shard / "data.mdb").write_bytes(data)
        if marker:
            (folder / shard / "unsynced").write_text("another boot\n")


def _opened(folder: Path, image: Image) -> dict[str, Any]:
    streams = sorted(image.history.begun)
    acked = sum(max(0, held.num_blocks) for held in map(image.history.last, streams) if held)
    result = {"cut": image.cut, "survived": image.survived, "acked": acked, "lost": 0}
    try:
        with Store.open(folder, durability=Durability.RELAXED) as store:  # sooner done; it is about what it finds
            found = {stream_id: check_stream(store, stream_id) for stream_id in streams}
            result |= _judged(image, found)
            _commit_more(store, found)
    except WrongDataError as wrong:
        result |= {"outcome": "wrong", "error": str(wrong)}
    except StoreError as error:
        result |= {
            "outcome": "unborn" if image.stage == "new" else "refused",
            "error": f"{type(error).__name__}: {error}",
        }
    return result


def _judged(image: Image, found: dict[str, Held | None]) -> dict[str, Any]:
    broken, lost = [], 0
    for stream_id, held in found.items():
        last = image.history.last(stream_id)
        if held not in image.history.allowed(stream_id, image.since):
            broken.append(f"{stream_id}: {held} instead of {last}")
        if last and held not in image.history.allowed(stream_id):
            lost += max(0, last.num_blocks - (held.num_blocks if held else 0))
    return {"outcome": "broken" if broken else "kept", "error": "; ".join(broken), "lost": lost}


def _commit_more(store: Store, found: dict[str, Held | None]) -> None:
    """The store goes on: every stream there is gets a block."""
    there = {name: held for name, held in found.items() if held}
    next_blocks = {name: range(held.num_blocks, held.num_blocks + 1) for name, held in there.items()}
    store.commit([commit_of(name, held.generation, next_blocks[name]) for name, held in there.items()])
    for name, held in there.items():
        check_blocks(store, name, held.generation, held.num_blocks + 1, range(held.num_blocks + 1))


def try_repairs(first: int, scratch: str, events: str, cuts: int, per_cut: int, seed: int) -> None:
    """Repair every image of a relaxed store from number `first` on; print what is there then."""
    recorded, folder = pickle.loads(Path(events).read_bytes()), Path(scratch)
    for number, image in enumerate(images(recorded, Durability.RELAXED, cuts, per_cut, seed)):
        if number >= first:
            lay_out(folder, image, marker=True)
            print(json.dumps(forked(lambda image=image: _repaired(folder, image))), flush=True)


def _repaired(folder: Path, image: Image) -> dict[str, Any]:
    """ "kept": all that is left reads as it was stored, or says that it is gone; "refused": nothing is left."""
    result: dict[str, Any] = {"cut": image.cut, "exact": 0, "gone": 0}
    try:
        with Store.open(folder, accept_unsynced=True, durability=Durability.RELAXED) as store:
            store.upkeep.verify(repair=True)
        with Store.open(folder, read_only=True) as store:
            for record in store.list_streams():
                _count_exact(store, record.stream_id, result)
        return result | {"outcome": "kept"}
    except WrongDataError as wrong:
        return result | {"outcome": "wrong", "error": str(wrong)}
    except StoreError as error:
        return result | {"outcome": "refused", "error": f"{type(error).__name__}: {error}"}
    except Exception as error:
        return result | {"outcome": "raised", "error": f"{type(error).__name__}: {error}"}


def _count_exact(store: Store, stream_id: str, result: dict[str, Any]) -> None:
    """Count the stream's blocks that read as they were stored, and those that say they cannot."""
    generation, count = store.get_stream(stream_id).settings["generation"], store.stats(stream_id).num_blocks
    for block_idx in range(count):
        try:
            check_kv(store, stream_id, generation, range(block_idx, block_idx + 1))
            result["exact"] += 1
        except StoreError:
            result["gone"] += 1
