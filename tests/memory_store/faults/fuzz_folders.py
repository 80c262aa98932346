"""Fuzz targets: the files of a saved library index, and the manifest of a data folder."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import numpy as np
from xxhash import xxh3_128_hexdigest

from memory_store import CorruptRecord, StoreUnavailable, UnsupportedFormat
from memory_store.folder import prepare, shard_places, write_manifest
from memory_store.library import LibraryIndex, LibrarySettings, LibrarySpec, block_range, vector_ids
from memory_store.records import Array
from memory_store.values import encode_json, seal, unseal
from tests.memory_store.faults.fuzz_json import changed_json
from tests.memory_store.faults.fuzzing import Target

_SPEC = LibrarySpec(fingerprint="model-a", layer=1, num_heads=2, head_dim=2)
_SETTINGS = LibrarySettings(tail_limit=7, num_probes=2)
_VECTORS = np.random.default_rng(0).standard_normal((64, _SPEC.dim)).astype(np.float32)
_KIND, _KEY = b"LIBX", b"library"
_SEALED_BYTES = 16
_COUNT = struct.Struct("<Q")
_ROW_BYTES = 4 * _SPEC.dim


def _load(ids: Array) -> Array:
    return _VECTORS[ids % len(_VECTORS)]


def _save(folder: Path) -> None:
    """Put an index of two segments, one with removed vectors, and of a tail into the folder."""
    index = LibraryIndex(_SPEC, _load, _SETTINGS)
    for blocks in (range(0, 5), range(5, 9), range(9, 11)):
        ids = vector_ids(3, blocks, 2)
        index.add(ids, _load(ids))
    index.remove_range(*block_range(3, range(6, 7)))
    index.save(folder)


def _opened(folder: Path) -> LibraryIndex | None:
    """The index in the folder, once all of it has been searched."""
    index = LibraryIndex.open(folder, _SPEC, _load, _SETTINGS)
    if index is not None:
        with np.errstate(all="ignore"):  # behind a right checksum, vectors may be any
            index.search(_VECTORS[0], 50)
            index.search(_VECTORS[0], 3, ids=[block_range(3, range(1, 7))])
        assert all(0 <= number < 2**23 and 0 <= count <= 2**32 for number, count in index.num_blocks.items())
        assert index.num_vectors >= 0
    return index


def library_manifest(folder: Path) -> Target:
    _save(folder)
    manifest, whole = folder / "manifest", _opened(folder)
    assert whole is not None and len(whole._state.segments) == 2
    files = {path.name: path.read_bytes() for path in folder.iterdir()}

    def check(value: bytes) -> bool:
        manifest.write_bytes(value)
        index = _opened(folder)
        if index is None:
            return False
        fields = json.loads(bytes(unseal(_KIND, _KEY, value)))
        tail, segments = index._state.tail, index._state.segments
        for name, ids in zip(
            (fields["tail"], *(part["name"] for part in fields["segments"])),
            (tail.ids, *(part.ids for part in segments)),
            strict=True,
        ):
            assert files[name].startswith(_COUNT.pack(len(ids)) + ids.tobytes())
        assert index.num_blocks == dict(fields["num_blocks"])
        return True

    return Target(seeds=[files["manifest"]], check=check, mend=_mend_manifest)


def _mend_manifest(value: bytes, rng: random.Random) -> bytes:
    payload = value[_SEALED_BYTES:]
    return seal(_KIND, _KEY, changed_json(payload, rng) if rng.random() < 0.5 else payload)


def library_files(folder: Path) -> Target:
    _save(folder)
    files = _Files(folder)
    return Target(seeds=[files.saved[name] for name in files.names], check=files.check, mend=files.mend)


class _Files:
    """A file is read in the place of a saved one, and under the name it should have, as the tail and as a segment.

    Behind its checksum, only what FAISS has written itself is given to FAISS, as it promises nothing of other bytes.

    Attributes:
        names: the tail's, the segments'.
        saved: name -> bytes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fields = json.loads(bytes(unseal(_KIND, _KEY, (folder / "manifest").read_bytes())))
        self.names = [self._fields["tail"], *(part["name"] for part in self._fields["segments"])]
        self.saved = {name: (folder / name).read_bytes() for name in self.names}
        counts = {name: _COUNT.unpack_from(self.saved[name])[0] for name in self.names}
        self._codes = [self.saved[name][_COUNT.size + 8 * counts[name] :] for name in self.names[1:]]

    def check(self, value: bytes) -> bool:
        digest = xxh3_128_hexdigest(value)
        name = self.names[int(digest, 16) % len(self.names)]
        assert (self._opened(name, value) is not None) == (value == self.saved[name])
        return self._read_as_tail(f"{digest}.tail", value) or self._read_as_segment(f"{digest}.segment", value)

    def _read_as_tail(self, name: str, value: bytes) -> bool:
        index = self._opened(name, value, tail=name)
        if index is not None:
            tail = index._state.tail
            assert _COUNT.pack(tail.count) + tail.ids.tobytes() + tail.vectors.tobytes() == value
        return index is not None

    def _read_as_segment(self, name: str, value: bytes) -> bool:
        own = [codes for codes in self._codes if value.endswith(codes)]
        index = self._opened(name, value, segments=[{"name": name, "dead": []}]) if own else None
        if index is not None:
            ids = index._state.segments[0].ids
            assert _COUNT.pack(len(ids)) + ids.tobytes() + own[0] == value
        return index is not None

    def _opened(self, name: str, value: bytes, **changes: object) -> LibraryIndex | None:
        """The index with another file in it."""
        place = self._folder / name
        place.write_bytes(value)
        (self._folder / "manifest").write_bytes(encode_json(_KIND, _KEY, self._fields | changes))
        try:
            return _opened(self._folder)
        finally:
            place.write_bytes(self.saved[name]) if name in self.saved else place.unlink()

    def mend(self, value: bytes, rng: random.Random) -> bytes:
        """With a right count, mostly, and vectors or codes behind the ids."""
        count = min(len(value[_COUNT.size :]) // 8, rng.choice((0, 1, 3, 4, 8, 10)))
        ids_end = _COUNT.size + 8 * count
        vectors = value[ids_end:][: _ROW_BYTES * count].ljust(_ROW_BYTES * count, b"\0")
        head = _COUNT.pack(count) if rng.random() < 0.8 else value[: _COUNT.size]
        return head + value[_COUNT.size : ids_end] + rng.choice((vectors, *self._codes))


def folder_manifest(folder: Path) -> Target:
    places = shard_places(folder, 2)
    for place in places:
        place.mkdir()
    write_manifest(folder, places)
    manifest = folder / "manifest.json"

    def check(value: bytes) -> bool:
        manifest.write_bytes(value)
        try:
            found = prepare(folder, read_only=True, shards=None)
        except (CorruptRecord, UnsupportedFormat, StoreUnavailable):
            return False
        fields = json.loads(value)
        assert found == places and fields["shards"] == 2 and fields["format"] in (1, 2)
        return True

    return Target(seeds=[manifest.read_bytes(), b'{"format": 1, "shards": 2}'], check=check, mend=changed_json)
