"""What is to be done of what was found."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cacheflow_ray.archive.finding import Found
from cacheflow_ray.archive.planning import NO_VIDEO, planned, to_do
from cacheflow_ray.archive.records import FileRecord, FileState


def found(path: Path, name: str = "", **more: object) -> Found:
    path.parent.mkdir(exist_ok=True, parents=True)
    if not path.exists():
        path.write_bytes(b"x" * 10)
    return Found(uri=str(path), name=name or path.stem, **{"is_video": True} | more)  # type: ignore[arg-type]


def ended(record: FileRecord, state: FileState, **more: object) -> Mapping[str, FileRecord]:
    return {record.uri: replace(record, state=state, **more)}  # type: ignore[arg-type]


def test_what_is_new_is_pending_and_what_is_no_video_by_its_name_is_skipped(tmp_path: Path) -> None:
    plan = planned([found(tmp_path / "a.mp4"), found(tmp_path / "b.txt", is_video=False)], {}, job="1")
    assert [(own.stream, own.state, own.reason, own.size) for own in plan] == [
        ("a", FileState.PENDING, "", 10),
        ("b", FileState.SKIPPED, NO_VIDEO, 10),
    ]


@pytest.mark.parametrize(
    ("state", "more", "retry", "expected"),
    [
        (FileState.DONE, {}, True, FileState.DONE),
        (FileState.RUNNING, {}, False, FileState.PENDING),
        (FileState.FAILED, {"reason": "broken"}, False, FileState.FAILED),
        (FileState.FAILED, {"reason": "broken"}, True, FileState.PENDING),
        (FileState.FAILED, {"transient": True}, False, FileState.PENDING),
        (FileState.SKIPPED, {"content": "of nobody any more"}, False, FileState.PENDING),
    ],
)
def test_what_was_seen_before(
    tmp_path: Path, state: FileState, more: dict[str, object], retry: bool, expected: FileState
) -> None:
    own = found(tmp_path / "a.mp4")
    known = ended(planned([own], {}, job="1")[0], state, **more)
    (record,) = planned([own], known, job="2", retry=retry)
    assert (record.state, record.job) == (expected, "2")
    assert record.reason == (more.get("reason", "") if expected is FileState.FAILED else "")


def test_a_double_of_what_is_done_stays_skipped(tmp_path: Path) -> None:
    both = [found(tmp_path / "a.mp4"), found(tmp_path / "b.mp4")]
    first, second = planned(both, {}, job="1")
    known = dict(ended(first, FileState.DONE, content="c")) | ended(second, FileState.SKIPPED, content="c")
    assert [own.state for own in planned(both, known, job="2")] == [FileState.DONE, FileState.SKIPPED]


def test_a_file_that_changed_is_looked_at_again(tmp_path: Path) -> None:
    own = found(tmp_path / "a.mp4")
    known = ended(planned([own], {}, job="1")[0], FileState.DONE)
    os.utime(tmp_path / "a.mp4", (1, 1))
    assert planned([own], known, job="2")[0].state is FileState.PENDING


def test_streams_are_named_after_folders_and_files_each_otherwise(tmp_path: Path) -> None:
    plan = planned(
        [
            found(tmp_path / "1.mp4", "in/Straße 5"),
            found(tmp_path / "2.mp4", "in-Stra-e-5"),
            found(tmp_path / "3.mp4", "x" * 200),
            found(tmp_path / "4.mp4", "§"),
            found(tmp_path / "5.mp4", "given", is_named=True),
        ],
        {},
        job="1",
    )
    names = [own.stream for own in plan]
    assert names[0] == "in-Stra-e-5" and names[1].startswith("in-Stra-e-5-") and len(names[1]) == 20
    assert names[2:] == ["x" * 128, "video", "given"]


def test_a_files_own_labels_come_before_those_of_all(tmp_path: Path) -> None:
    own = found(tmp_path / "a.mp4", labels={"a": "own"}, start="2026")
    (record,) = planned([own], {}, job="1", labels={"a": "all", "b": "all"})
    assert (record.labels, record.start) == ({"a": "own", "b": "all"}, "2026")


def test_the_largest_are_begun_first(tmp_path: Path) -> None:
    for name, size in (("a", 1), ("b", 3), ("c", 2)):
        (tmp_path / f"{name}.mp4").write_bytes(b"x" * size)
    plan = planned([found(tmp_path / f"{name}.mp4") for name in "abc"], {}, job="1")
    assert [own.stream for own in to_do(plan)] == ["b", "c", "a"]
