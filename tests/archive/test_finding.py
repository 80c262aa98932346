"""What paths, patterns, manifests and addresses stand for."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest

from cacheflow_ray.archive.finding import Found, find
from cacheflow_ray.errors import SourceNotFound, UsageError


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    for name in ("a.mp4", "sub/b.MKV", "sub/deep/c.webm", "sub/notes.txt", ".hidden.mp4", ".git/d.mp4"):
        path = tmp_path / "shelf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "shelf"


def short(found: list[Found], root: Path) -> list[tuple[str, str, bool | None]]:
    return [(own.uri.removeprefix(f"{root}/"), own.name, own.is_video) for own in found]


def test_a_folder_is_walked_and_hidden_files_are_passed_by(shelf: Path) -> None:
    assert short(find([str(shelf)]), shelf) == [
        ("a.mp4", "a", True),
        ("sub/b.MKV", "sub/b", True),
        ("sub/deep/c.webm", "sub/deep/c", True),
        ("sub/notes.txt", "sub/notes", False),
    ]


def test_patterns_are_filled_in(shelf: Path) -> None:
    assert short(find([f"{shelf}/sub/*.MKV"]), shelf) == [("sub/b.MKV", "b", True)]
    assert [own.uri for own in find([f"{shelf}/**/*.webm"])] == [f"{shelf}/sub/deep/c.webm"]


def test_a_file_named_is_tried_whatever_it_is_called(shelf: Path) -> None:
    assert short(find([str(shelf / "sub/notes.txt")]), shelf) == [("sub/notes.txt", "notes", None)]


def test_a_file_with_signs_of_a_pattern_in_its_name_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "shot [1].mp4"
    path.touch()
    assert [own.uri for own in find([str(path)])] == [str(path)]


def test_each_file_comes_once_and_what_a_manifest_says_of_it_counts(shelf: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "list.jsonl"
    manifest.write_text(json.dumps({"uri": "shelf/a.mp4", "stream": "front", "labels": {"k": "v"}, "start": "2026"}))
    for sources in ([str(shelf), str(manifest)], [str(manifest), str(shelf)]):
        first = find(sources)[0]
        assert (first.name, first.is_named, first.labels, first.start) == ("front", True, {"k": "v"}, "2026")
        assert len(find(sources)) == 4


def test_a_table_may_name_labels_in_two_ways(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("uri,labels,label.room\n/x/a.mp4,year=2026; who=me,3\nb.mp4,,\n", encoding="utf-8-sig")
    second, first = sorted(find([str(manifest)]), key=lambda own: -len(own.uri))
    assert (first.uri, first.labels) == ("/x/a.mp4", {"year": "2026", "who": "me", "room": "3"})
    assert (second.uri, second.labels) == (f"{tmp_path}/b.mp4", {"room": ""})


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{", "this is no JSON"),
        ("[]", "has to be an object"),
        ('{"url": "x"}', "unknown column 'url'"),
        ('{"stream": "x"}', "has to have a uri"),
        ('{"uri": "x", "labels": {"a": 1}}', "names and texts"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, told: str) -> None:
    manifest = tmp_path / "list.jsonl"
    manifest.write_text('{"uri": "a.mp4"}\n\n' + row)
    with pytest.raises(UsageError, match=told) as error:
        find([str(manifest)])
    assert ":3:" in str(error.value)


@pytest.mark.parametrize("name", ["nothing.mp4", "nothing.csv", "none*.mp4", "empty"])
def test_what_stands_for_nothing_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceNotFound, match="check the path"):
        find([str(tmp_path / name)])


def test_other_filesystems_are_walked_alike() -> None:
    fs = fsspec.filesystem("memory")
    for name in ("/box/a.mp4", "/box/in/b.mp4", "/box/c.txt"):
        fs.pipe_file(name, b"x")
    found = find(["memory://box"])
    assert [(own.uri, own.name, own.is_video) for own in found] == [
        ("memory:///box/a.mp4", "a", True),
        ("memory:///box/c.txt", "c", False),
        ("memory:///box/in/b.mp4", "in/b", True),
    ]
    assert find(["https://example.org/clips/a.mp4?x=1"])[0].name == "a"


def test_an_address_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="nowhere"):
        find(["nowhere://a/b.mp4"])
