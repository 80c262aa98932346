"""Sources that are missing, are no video, or break off."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from cacheflow_ray.errors import BrokenMedia, MediaError, SourceNotFound, UnsupportedMedia
from cacheflow_ray.media import Encoding, Frame, open_source, write_video
from tests.media.clips import H264, audio_only, clip, number_of, numbered

B_FRAMES = Encoding(options={"preset": "medium", "crf": "12", "bf": "3"})
HEVC = Encoding(
    codec="libx265", options={"preset": "ultrafast", "crf": "12", "x265-params": "log-level=none:bframes=0"}
)
VP9 = Encoding(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8", "crf": "10"})


def _index_first(path: Path) -> None:
    """Rewrites an mp4 with its index in front, as for the web: then a cut leaves something to decode."""
    with av.open(str(path)) as source, av.open(str(path) + ".mp4", "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    path.with_name(path.name + ".mp4").replace(path)


def _decode(path: Path) -> tuple[list[Frame], object]:
    with open_source(path, fps=None) as source:
        frames = list(source)
    return frames, source.report.reason


@pytest.mark.parametrize(
    ("suffix", "encoding", "reports_every_cut"),
    [
        ("mp4", H264, True),
        ("mp4", B_FRAMES, True),
        ("mp4", VP9, True),
        ("mkv", H264, True),
        ("mkv", HEVC, True),
        ("webm", VP9, True),
        ("avi", H264, True),
        ("ts", H264, False),  # nothing in a transport stream says how long it should have been
    ],
    ids=["mp4", "mp4-b-frames", "mp4-vp9", "mkv", "mkv-hevc", "webm", "avi", "ts"],
)
def test_a_cut_file_gives_a_prefix_or_our_error(
    tmp_path: Path, suffix: str, encoding: Encoding, reports_every_cut: bool
) -> None:
    path = clip(tmp_path / f"whole.{suffix}", 24, encoding=encoding)
    if suffix == "mp4":
        _index_first(path)
    data = path.read_bytes()
    whole, reason = _decode(path)
    assert (len(whole), reason) == (24, None)
    outcomes = {"prefix": 0, "error": 0}
    for size in range(1, len(data), max(1, len(data) // 60)):
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(data[:size])
        try:
            frames, reason = _decode(cut)
        except MediaError as error:
            assert "\n" not in str(error) and "cut." in str(error)
            outcomes["error"] += 1
            continue
        outcomes["prefix"] += 1
        assert len(frames) <= 24
        for ours, theirs in zip(frames, whole, strict=False):
            assert ours.timestamp_s == theirs.timestamp_s
            assert np.array_equal(ours.image, theirs.image)
        if reports_every_cut and len(frames) < 24:
            assert reason is not None
    assert min(outcomes.values()) > 0


def test_the_report_says_where_and_why_it_broke(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", 50)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with open_source(path, fps=None) as source:
        assert source.report.reason is None
        last = list(source)[-1]
    assert source.report.broken_at_s == last.timestamp_s < 1.5
    assert source.report.reason is not None and "2.00 s" in source.report.reason


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_flipped_bytes_never_raise_anything_foreign(tmp_path: Path, suffix: str) -> None:
    data = bytearray(clip(tmp_path / f"a.{suffix}", 24, encoding=B_FRAMES).read_bytes())
    rng = np.random.default_rng(7)
    for _ in range(40):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 12):
            damaged[at] ^= int(rng.integers(1, 256))
        (tmp_path / f"b.{suffix}").write_bytes(damaged)
        try:
            frames, _ = _decode(tmp_path / f"b.{suffix}")
        except MediaError as error:
            assert "\n" not in str(error)
            continue
        assert all(a.timestamp_s < b.timestamp_s for a, b in pairwise(frames))


def test_a_damaged_packet_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 10, encoding=Encoding(options={"g": "1", "crf": "12"}))
    with av.open(str(path)) as container:
        at, size = [(p.pos, p.size) for p in container.demux(video=0) if p.size][4]
    data = bytearray(path.read_bytes())
    data[at : at + size] = b"\xff" * size
    path.write_bytes(data)
    with open_source(path, fps=None) as source:
        numbers = [number_of(f.image) for f in source]
    assert numbers == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert source.report.errors == 1 and source.report.reason is None


def _unknown_codec(path: Path) -> Path:
    path.write_bytes(clip(path, 3).read_bytes().replace(b"avc1", b"zzzz"))
    return path


def _bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _unusable(tmp_path: Path) -> Iterator[tuple[Path, type[MediaError], str]]:
    yield _bytes(tmp_path / "zero.mp4", b""), UnsupportedMedia, "empty"
    yield _bytes(tmp_path / "notes.txt", b"dear diary\n" * 200), UnsupportedMedia, "text"
    yield _bytes(tmp_path / "notes.mp4", b"dear diary\n" * 200), UnsupportedMedia, "not a video"
    yield _bytes(tmp_path / "noise.mkv", np.random.default_rng(0).bytes(5000)), UnsupportedMedia, "not a video"
    yield audio_only(tmp_path / "song.m4a"), UnsupportedMedia, "audio"
    yield _unknown_codec(tmp_path / "odd.mp4"), UnsupportedMedia, "zzzz"
    yield _bytes(tmp_path / "cut.mp4", clip(tmp_path / "a.mp4", 9).read_bytes()[:900]), BrokenMedia, "cut short"
    yield _bytes(tmp_path / "cut.png", b"\x89PNG\r\n\x1a\n\0\0"), BrokenMedia, "not one frame"
    yield tmp_path / "nowhere.mp4", SourceNotFound, "no file"
    yield tmp_path / "a.mp4" / "inside.mp4", SourceNotFound, "no file"
    yield tmp_path / ("x" * 300), SourceNotFound, "cannot be read"
    yield tmp_path / "nul\0byte", SourceNotFound, "cannot be read"
    (tmp_path / "bare").mkdir()
    yield tmp_path / "bare", UnsupportedMedia, "without images"


def test_each_unusable_source_has_its_error_in_one_line(tmp_path: Path) -> None:
    for path, kind, word in _unusable(tmp_path):
        with pytest.raises(MediaError) as caught:
            open_source(path, fps=1.0)
        message = str(caught.value)
        assert type(caught.value) is kind, message
        assert word in message and "\n" not in message
        assert repr(str(path)) in message and ":" in message


@pytest.mark.parametrize("suffix", ["mp4", "png"])
def test_a_picture_above_the_limit_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"big.{suffix}"
    if suffix == "mp4":
        write_video(path, numbered(1, 96, 128), codec=H264)
    else:
        Image.fromarray(numbered(1, 96, 128)[0]).save(path)
    with pytest.raises(UnsupportedMedia, match=r"128x96.*limit of 5000 pixels"):
        open_source(path, fps=1.0, max_pixels=5000)
    assert len(list(open_source(path, fps=1.0, max_pixels=128 * 96))) == 1


def test_a_picture_that_grows_above_the_limit_in_mid_stream_is_left_out(tmp_path: Path) -> None:
    clip(tmp_path / "a.h264", 255)
    write_video(tmp_path / "b.h264", numbered(5, 96, 128), codec=H264)
    (tmp_path / "ab.h264").write_bytes((tmp_path / "a.h264").read_bytes() + (tmp_path / "b.h264").read_bytes())
    with open_source(tmp_path / "ab.h264", fps=None, max_pixels=5000) as source:
        assert [f.image.shape[:2] for f in source] == [(48, 64)] * 255
    assert source.report.errors > 0


def test_addresses_that_lead_nowhere_are_named_without_their_password() -> None:
    with pytest.raises(SourceNotFound, match="cannot be reached") as caught:
        open_source("http://user:secret@127.0.0.1:9/video.mp4", fps=1.0)
    assert "secret" not in str(caught.value) and "127.0.0.1:9" in str(caught.value)
    with pytest.raises(UnsupportedMedia, match="gopher"):
        open_source("gopher://127.0.0.1/video.mp4", fps=1.0)


def test_a_refused_source_leaves_no_file_open(tmp_path: Path) -> None:
    gc.collect()  # what earlier tests left is not of this one's account
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else pytest.skip("no /proc")
    for path, _, _ in _unusable(tmp_path):
        with pytest.raises(MediaError):
            open_source(path, fps=1.0)
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
