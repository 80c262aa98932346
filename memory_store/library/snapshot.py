"""A library index on disk: a copy to start from sooner, never the truth.

FOLDER/manifest                what belongs to the snapshot, sealed with a checksum
FOLDER/<xxh3_128>.segment      a segment, written once: count u64, ids [n] int64, FAISS index
FOLDER/<xxh3_128>.tail         count u64, ids [n] int64, vectors [n, H * D] float32

Files are named by the checksum of their bytes, and the manifest is renamed into place last, so a snapshot is always one
whole state. Nothing is trusted: whatever is missing, changed, of another library or of another version makes the
snapshot useless, and no byte reaches FAISS unverified.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import faiss
import numpy as np
from xxhash import xxh3_128

from memory_store.codec import Buffer
from memory_store.errors import CorruptRecord
from memory_store.files import remove_others, sync_folder, write_file
from memory_store.library.ids import MAX_BLOCKS, MAX_STREAMS
from memory_store.library.segment import Segment
from memory_store.library.state import LibrarySpec, State
from memory_store.library.tail import Tail
from memory_store.records import Array
from memory_store.values import MALFORMED, decode_json, encode_json

FORMAT = 1
_MANIFEST, _SEGMENT, _TAIL = "manifest", ".segment", ".tail"
_KIND, _KEY = b"LIBX", b"library"
_COUNT = struct.Struct("<Q")


class Snapshots:
    """Keeps states of one index in folders; a segment it wrote or read there before is not written again.

    Not thread-safe.
    """

    def __init__(self, spec: LibrarySpec, codec: str) -> None:
        self._about = asdict(spec) | {"codec": codec}
        self._dim = spec.dim
        self._written: dict[tuple[Path, int], str] = {}

    def write(self, folder: Path, state: State) -> None:
        """Make the folder hold `state`. Raises: OSError: it holds what it held, or `state`, and either is whole."""
        folder.mkdir(parents=True, exist_ok=True)
        written = {(folder, part.key): self._segment(folder, part) for part in state.segments}
        tail = state.tail.after(0)
        tail_name = _write_named(folder, _TAIL, [_COUNT.pack(tail.count), tail.ids.data, tail.vectors.data])
        names = [written[folder, part.key] for part in state.segments]
        dead = [_runs(~part.alive) for part in state.segments]
        fields = {
            "format": FORMAT,
            "about": self._about,
            "segments": [{"name": name, "dead": rows} for name, rows in zip(names, dead, strict=True)],
            "tail": tail_name,
            "num_blocks": sorted(state.num_blocks.items()),
        }
        sync_folder(folder)
        write_file(folder / _MANIFEST, [encode_json(_KIND, _KEY, fields)])
        sync_folder(folder)
        remove_others(folder, {tail_name, *names}, (_SEGMENT, _TAIL))
        self._written = written

    def read(self, folder: Path) -> State | None:
        """The state the folder holds, its segments with keys 0, 1, ...; None when there is any doubt about it."""
        try:
            fields = decode_json(_KIND, _KEY, (folder / _MANIFEST).read_bytes(), dict)
            if fields["format"] != FORMAT or fields["about"] != self._about:
                return None
            parts = fields["segments"]
            state = State(
                segments=tuple(_read_segment(folder, key, part, self._dim) for key, part in enumerate(parts)),
                tail=_read_tail(folder, fields["tail"], self._dim),
                num_blocks=_read_marks(fields["num_blocks"]),
            )
        except (OSError, CorruptRecord, RuntimeError, *MALFORMED):
            return None  # RuntimeError: whole bytes that this version of FAISS does not read
        self._written = {(folder, key): part["name"] for key, part in enumerate(parts)}
        return state

    def _segment(self, folder: Path, segment: Segment) -> str:
        name = self._written.get((folder, segment.key))
        if name is not None and (folder / name).exists():
            return name
        codes = faiss.serialize_index(segment.index)
        return _write_named(folder, _SEGMENT, [_COUNT.pack(len(segment.ids)), segment.ids.data, codes.data])


def _write_named(folder: Path, suffix: str, parts: list[Buffer]) -> str:
    digest = xxh3_128()
    for part in parts:
        digest.update(part)
    name = f"{digest.hexdigest()}{suffix}"
    write_file(folder / name, parts)
    return name


def _read_named(folder: Path, name: str) -> tuple[Array, memoryview]:
    """The ids and what follows them. Raises: CorruptRecord: the bytes are not those the name tells of."""
    value = memoryview((folder / name).read_bytes())
    if xxh3_128(value).hexdigest() != name.partition(".")[0]:
        raise CorruptRecord(f"{folder / name} fails its checksum: delete the folder, it is rebuilt", path=str(folder))
    (count,) = _COUNT.unpack_from(value)
    ids = np.frombuffer(value, np.int64, count, _COUNT.size)
    return ids, value[_COUNT.size + ids.nbytes :]


def _read_segment(folder: Path, key: int, part: Mapping[str, Any], dim: int) -> Segment:
    ids, codes = _read_named(folder, part["name"])
    index = cast(faiss.IndexIVF, faiss.deserialize_index(np.frombuffer(codes, np.uint8)))
    if (index.ntotal, index.d) != (len(ids), dim):
        raise ValueError(f"{index.ntotal} vectors of dimension {index.d} for {len(ids)} ids")
    alive = np.ones(len(ids), bool)
    for start, stop in part["dead"]:
        alive[start:stop] = False
    return Segment(key=key, ids=ids.copy(), alive=alive, index=index)


def _read_tail(folder: Path, name: str, dim: int) -> Tail:
    ids, data = _read_named(folder, name)
    return Tail.empty(dim).appended(ids, np.frombuffer(data, np.float32).reshape(len(ids), dim))


def _read_marks(pairs: Any) -> dict[int, int]:
    marks: dict[int, int] = dict(pairs)
    if not all(_is_count(key, MAX_STREAMS - 1) and _is_count(value, MAX_BLOCKS) for key, value in marks.items()):
        raise ValueError(f"no stream has a number or blocks like these: {marks}")
    return marks


def _is_count(value: object, most: int) -> bool:
    return isinstance(value, int) and 0 <= value <= most


def _runs(flags: Array) -> list[list[int]]:
    """[start, stop) of every run of true values in `flags`, bool [n]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    runs: list[list[int]] = edges.reshape(-1, 2).tolist()
    return runs
