"""What a service reads for those who call it, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheflow_ray.archive.access import Gate
from cacheflow_ray.archive.finding import Found, find
from cacheflow_ray.archive.planning import planned, within_quota
from cacheflow_ray.archive.records import FileRecord, FileState
from cacheflow_ray.errors import UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of videos with links, beside a secret."""
    (tmp_path / "secret.mp4").write_text("secret")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "b.mp4").write_text("secret")
    root = tmp_path / "videos"
    root.mkdir()
    (root / "a.mp4").write_text("video")
    (root / "within.mp4").symlink_to(root / "a.mp4")
    (root / "out.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "away").symlink_to(tmp_path / "private")
    return root


@pytest.mark.parametrize("source", ["a.mp4", "", ".", "*.mp4", "within.mp4", "none.mp4", "x/../a.mp4"])
def test_what_is_below_the_root_is_read(root: Path, source: str) -> None:
    gate = Gate(root=root)
    assert Path(gate.source(source)).is_relative_to(root)
    assert gate.source(str(root / source)) == gate.source(source)


@pytest.mark.parametrize(
    "source",
    [
        "..",
        "../secret.mp4",
        "*/../../secret.mp4",
        "/etc/passwd",
        "out.mp4",
        "away",
        "away/b.mp4",
        "away/*",
        "file:///etc/passwd",
        "local:///etc/passwd",
        "FILE:///etc/passwd",
        "memory://x",
        "sftp://localhost/etc/passwd",
        "dir://::file:///etc",
        "simplecache::file:///etc/passwd",
        "https://host/a.zip::file:///etc/passwd",
        "zip://passwd::https://host/a.zip",
        "a\0b",
    ],
)
def test_what_leads_elsewhere_is_not(root: Path, source: str) -> None:
    with pytest.raises(UsageError, match=r"the service (reads no file|opens no address)"):
        Gate(root=root).source(source)


@pytest.mark.parametrize("source", ["https://host/a.mp4", "s3://bucket/clips/*.mkv", "gs://bucket/list.csv"])
def test_remote_addresses_are_read_with_and_without_a_root(root: Path, source: str) -> None:
    assert Gate(root=root).source(source) == Gate(root=None).source(source) == source


def test_without_a_root_no_file_is_read(root: Path) -> None:
    with pytest.raises(UsageError, match="--source-root"):
        Gate(root=None).source(str(root / "a.mp4"))


def test_every_file_found_is_looked_at_by_what_it_leads_to(root: Path, tmp_path: Path) -> None:
    gate, secret = Gate(root=root), tmp_path / "secret.mp4"
    manifest = root / "list.csv"
    manifest.write_text(
        f"uri,stream\na.mp4,\n{secret},\n../secret.mp4,other\nfile://{secret},third\nwithin.mp4,acme:door\n"
    )
    plan = planned(find([str(root), str(manifest)]), {}, job="1", tenant="zeta", refusal=gate.refusal)
    allowed = {Path(own.uri).name: own for own in plan if own.state is FileState.PENDING}
    assert {name: own.stream for name, own in allowed.items()} == {"a.mp4": "zeta:a"}
    refused = [own for own in plan if own.state is FileState.FAILED]
    assert {own.reason.partition("'")[0] for own in refused if "acme" not in own.reason} == {
        "the service reads no file ",
        "the service opens no address like ",
    }
    assert all((own.size, own.modified_s, own.stream, own.transient) == (None, None, "", False) for own in refused)
    (misnamed,) = [own for own in refused if "acme" in own.reason]
    assert misnamed.uri == str(root / "within.mp4")

    known = {own.uri: own for own in plan}
    (again,) = planned([Found(uri=misnamed.uri, name="within")], known, job="2", tenant="zeta", refusal=gate.refusal)
    assert (again.stream, again.state) == ("zeta:within", FileState.PENDING)


def test_what_is_done_stays_done_when_it_may_not_be_read_any_more(root: Path) -> None:
    done = FileRecord(uri=str(root / "out.mp4"), stream="out", job="1", state=FileState.DONE, content="c")
    (record,) = planned([Found(uri=done.uri, name="out")], {done.uri: done}, job="2", refusal=Gate(root=root).refusal)
    assert (record.state, record.content, record.job) == (FileState.DONE, "c", "2")


def test_files_that_would_make_too_many_streams_wait_for_the_next_run() -> None:
    plan = [
        FileRecord(uri=f"/{name}", stream=f"acme:{name}", job="1", state=state)
        for name, state in (("a", FileState.PENDING), ("b", FileState.DONE), ("c", FileState.PENDING))
    ]
    plan.append(FileRecord(uri="/d", stream="acme:d", job="1"))
    kept = within_quota(plan, {"acme:b", "acme:c"}, 3)
    assert [own.state for own in kept] == [FileState.PENDING, FileState.DONE, FileState.PENDING, FileState.FAILED]
    assert kept[-1].transient and "max_streams" in kept[-1].reason
