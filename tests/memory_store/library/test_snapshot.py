"""Snapshots: opened as what was saved, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from memory_store.library import (
    CODECS,
    LibraryIndex,
    LibrarySettings,
    LibrarySpec,
    block_range,
    stream_range,
    vector_ids,
)
from tests.memory_store.library.clusters import SMALL, SPEC, D, H, Library, V, recall


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def saved(library: Library, folder: Path, settings: LibrarySettings = SMALL) -> LibraryIndex:
    """Segments, some of their rows removed, and a tail."""
    index = library.index(settings)
    index.remove_range(*block_range(1, range(30, 90)))
    index.save(folder)
    assert index._state.segments and index._state.tail.count
    return index


def same_answers(library: Library, left: LibraryIndex, right: LibraryIndex) -> None:
    assert left.num_vectors == right.num_vectors
    for query in library.queries(10):
        for ranges in (None, [stream_range(1)]):
            for mine, theirs in zip(
                left.search(query, 40, ids=ranges), right.search(query, 40, ids=ranges), strict=True
            ):
                assert mine.tolist() == theirs.tolist()


def test_the_same_vectors_make_the_same_files(library: Library, tmp_path: Path) -> None:
    for name in ("first", "second"):
        library.index(LibrarySettings(tail_limit=900, merge_factor=3)).save(tmp_path / name)

    assert contents(tmp_path / "first") == contents(tmp_path / "second")


@pytest.mark.parametrize("codec", CODECS)
def test_a_snapshot_opens_as_what_was_saved(library: Library, tmp_path: Path, codec: str) -> None:
    settings = replace(SMALL, codec=codec)
    index = saved(library, tmp_path, settings)

    opened = LibraryIndex.open(tmp_path, SPEC, library.load, settings)

    assert opened is not None
    assert dict(opened.num_blocks) == dict.fromkeys(range(4), 1_000)
    same_answers(library, index, opened)


def test_an_opened_index_goes_on_from_its_marks(tmp_path: Path) -> None:
    library = Library(num_streams=4, num_blocks=700)
    short = LibraryIndex(SPEC, library.load, SMALL)
    for stream in range(4):
        ids = vector_ids(stream, range(400), V)
        short.add(ids, library.load(ids))
    short.save(tmp_path)

    opened = LibraryIndex.open(tmp_path, SPEC, library.load, SMALL)

    assert opened is not None
    library.fill(opened, first_block=opened.num_blocks[0])
    opened.save(tmp_path)
    again = LibraryIndex.open(tmp_path, SPEC, library.load, SMALL)
    assert again is not None and again.num_vectors == len(library.ids)
    same_answers(library, opened, again)
    assert recall(again, library) >= 0.98


def test_an_empty_index_can_be_saved(library: Library, tmp_path: Path) -> None:
    LibraryIndex(SPEC, library.load).save(tmp_path / "new" / "folder")

    opened = LibraryIndex.open(tmp_path / "new" / "folder", SPEC, library.load)

    assert opened is not None and opened.num_vectors == 0 and not opened.num_blocks


def test_a_segment_is_written_once(library: Library, tmp_path: Path) -> None:
    def written(folder: Path) -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in folder.glob("*.segment")}

    index = saved(library, tmp_path)
    before = written(tmp_path)
    index.add(vector_ids(8, range(5), 1), library.vectors[:5])
    index.save(tmp_path)
    opened = LibraryIndex.open(tmp_path, SPEC, library.load, SMALL)
    assert opened is not None
    opened.save(tmp_path)

    assert before and written(tmp_path) == before
    assert len(list(tmp_path.glob("*.tail"))) == 1


def test_what_a_killed_save_left_is_no_part_of_the_snapshot(library: Library, tmp_path: Path) -> None:
    index = saved(library, tmp_path)
    for name in ("manifest.new", "0123.segment.new", "0123.segment"):
        (tmp_path / name).write_bytes(b"half")

    opened = LibraryIndex.open(tmp_path, SPEC, library.load, SMALL)
    assert opened is not None
    same_answers(library, index, opened)
    opened.save(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.read_bytes() == b"half"]


@pytest.mark.parametrize("step", ["write_file", "sync_folder"])
def test_a_save_that_fails_leaves_the_last_one(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    index = saved(library, tmp_path)
    index.add(vector_ids(8, range(9), V), library.vectors[: 9 * V])

    def full(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(f"memory_store.library.snapshot.{step}", full)
        with pytest.raises(OSError, match="no space left"):
            index.save(tmp_path)
    before = LibraryIndex.open(tmp_path, SPEC, library.load, SMALL)
    index.save(tmp_path)
    after = LibraryIndex.open(tmp_path, SPEC, library.load, SMALL)

    assert before is not None and 8 not in before.num_blocks
    assert after is not None and after.num_blocks[8] == 9


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        (replace(SPEC, fingerprint="other"), SMALL),
        (replace(SPEC, layer=4), SMALL),
        (replace(SPEC, num_heads=D, head_dim=H), SMALL),
        (replace(SPEC, head_dim=D + 1), SMALL),
        (SPEC, replace(SMALL, codec="rabitq")),
    ],
)
def test_a_snapshot_of_another_library_is_not_opened(
    library: Library, tmp_path: Path, spec: LibrarySpec, settings: LibrarySettings
) -> None:
    saved(library, tmp_path)

    assert LibraryIndex.open(tmp_path, spec, library.load, settings) is None


def test_a_snapshot_of_a_newer_format_is_not_opened(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("memory_store.library.snapshot.FORMAT", 2)
        saved(library, tmp_path)
        assert LibraryIndex.open(tmp_path, SPEC, library.load, SMALL) is not None

    assert LibraryIndex.open(tmp_path, SPEC, library.load, SMALL) is None


def test_a_snapshot_with_a_missing_file_is_not_opened(library: Library, tmp_path: Path) -> None:
    assert LibraryIndex.open(tmp_path / "nowhere", SPEC, library.load, SMALL) is None
    saved(library, tmp_path)
    for path in list(tmp_path.iterdir()):
        value = path.read_bytes()
        path.unlink()
        assert LibraryIndex.open(tmp_path, SPEC, library.load, SMALL) is None, path.name
        path.write_bytes(value)
    assert LibraryIndex.open(tmp_path, SPEC, library.load, SMALL) is not None


def test_no_changed_byte_goes_unnoticed(tmp_path: Path) -> None:
    library = Library(num_streams=2, num_blocks=150)
    settings = LibrarySettings(tail_limit=250)
    library.index(settings).save(tmp_path)
    rng = np.random.default_rng(1)

    kinds = set()
    for path in sorted(tmp_path.iterdir()):
        value = path.read_bytes()
        kinds.add(path.suffix)
        places = {*range(min(64, len(value))), len(value) - 1, *rng.integers(len(value), size=100).tolist()}
        damaged = [value[:at] + bytes([value[at] ^ (1 << at % 8)]) + value[at + 1 :] for at in places]
        for changed in [*damaged, value[:-1], value[: len(value) // 2], value + b"\0", b""]:
            path.write_bytes(changed)
            assert LibraryIndex.open(tmp_path, SPEC, library.load, settings) is None, path.name
        path.write_bytes(value)
    assert kinds == {"", ".segment", ".tail"}
    assert LibraryIndex.open(tmp_path, SPEC, library.load, settings) is not None


def test_a_rebuilt_index_replaces_a_damaged_file(library: Library, tmp_path: Path) -> None:
    index = saved(library, tmp_path)
    segment = next(tmp_path.glob("*.segment"))
    segment.write_bytes(segment.read_bytes()[:-1])

    rebuilt = library.index()
    rebuilt.remove_range(*block_range(1, range(30, 90)))
    rebuilt.save(tmp_path)

    opened = LibraryIndex.open(tmp_path, SPEC, library.load, SMALL)
    assert opened is not None
    same_answers(library, index, opened)
