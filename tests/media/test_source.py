from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest

from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.media import Encoding, Frame, open_source, write_video
from cacheflow_ray.media.frames import Image
from tests.media.clips import H264, clip, need_encoder, number_of, numbered, real_clip

B_FRAMES = Encoding(options={"preset": "medium", "crf": "12", "bf": "3"})
HEVC = Encoding(codec="libx265", options={"preset": "ultrafast", "crf": "12", "x265-params": "log-level=none"})
AV1 = Encoding(codec="libsvtav1", options={"preset": "8", "crf": "5"})
VP9 = Encoding(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8", "crf": "10"})

KINDS = [
    ("mp4", B_FRAMES, "h264"),
    ("mkv", B_FRAMES, "h264"),
    ("ts", B_FRAMES, "h264"),
    ("avi", B_FRAMES, "h264"),
    ("mov", HEVC, "hevc"),
    ("mkv", HEVC, "hevc"),
    ("ts", HEVC, "hevc"),
    ("mp4", AV1, "av1"),
    ("mkv", AV1, "av1"),
    ("webm", VP9, "vp9"),
    ("mkv", VP9, "vp9"),
    ("avi", Encoding(codec="mpeg4"), "mpeg4"),
    ("h264", B_FRAMES, "h264"),
]


@pytest.mark.parametrize(("suffix", "encoding", "codec"), KINDS, ids=lambda value: getattr(value, "codec", value))
def test_every_frame_comes_out_once_in_order_at_its_time(
    tmp_path: Path, suffix: str, encoding: Encoding, codec: str
) -> None:
    path = clip(tmp_path / f"clip.{suffix}", 30, encoding=encoding)
    with open_source(path, fps=None) as source:
        frames = list(source)
    assert [number_of(f.image) for f in frames] == list(range(30))
    assert [f.seq for f in frames] == list(range(30))
    np.testing.assert_allclose([f.timestamp_s for f in frames], np.arange(30) / 25, atol=0.6e-3)
    assert (source.info.codec, source.info.width, source.info.height) == (codec, 64, 48)
    assert (source.report.decoded, source.report.reason, source.report.errors) == (30, None, 0)
    assert all(f.image.flags.c_contiguous and f.image.dtype == np.uint8 for f in frames)


def test_times_are_exact_where_the_start_is_no_whole_microsecond(tmp_path: Path) -> None:
    with open_source(clip(tmp_path / "a.ts", 4, fps=30, encoding=B_FRAMES), fps=None) as source:
        assert [f.timestamp_s for f in source] == [0.0, 1 / 30, 2 / 30, 3 / 30]


def test_sampling_takes_the_first_frame_to_reach_each_second(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 60, fps=12.5)
    with open_source(path, fps=1.0) as source:
        frames = list(source)
    assert [number_of(f.image) for f in frames] == [0, 13, 25, 38, 50]
    assert [f.timestamp_s for f in frames] == [0.0, 1.04, 2.0, 3.04, 4.0]
    assert (source.report.decoded, source.report.sampled) == (60, 5)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_varying_rate_keeps_its_true_times(tmp_path: Path, suffix: str) -> None:
    times = [0.0, 0.033, 0.1, 0.5, 0.51, 1.7, 2.0, 9.25]
    frames = [Frame(seq=i, timestamp_s=t, image=im) for i, (t, im) in enumerate(zip(times, numbered(8), strict=True))]
    write_video(tmp_path / f"v.{suffix}", frames, codec=H264)
    with open_source(tmp_path / f"v.{suffix}", fps=None) as source:
        assert [f.timestamp_s for f in source] == pytest.approx(times, abs=1e-6)
    with open_source(tmp_path / f"v.{suffix}", fps=2.0) as source:
        assert [number_of(f.image) for f in source] == [0, 3, 5, 6, 7]
    assert source.report.reason is None


@pytest.mark.parametrize("start_seq", [0, 1, 4, 7, 50])
def test_start_seq_gives_exactly_the_rest_of_the_full_run(tmp_path: Path, start_seq: int) -> None:
    path = clip(tmp_path / "a.mp4", 40)
    with open_source(path, fps=5.0) as source:
        full = list(source)
    with open_source(path, fps=5.0, start_seq=start_seq) as source:
        rest = list(source)
    assert [(f.seq, f.timestamp_s) for f in rest] == [(f.seq, f.timestamp_s) for f in full[start_seq:]]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(rest, full[start_seq:], strict=True))
    assert source.report.sampled == len(full) == 8


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_rotated_video_comes_out_upright(tmp_path: Path, degrees: int) -> None:
    upright = numbered(3)
    turned = [np.ascontiguousarray(np.rot90(image, degrees // 90)) for image in upright]  # undone by the clockwise turn
    write_video(tmp_path / "r.mp4", turned, codec=Encoding(rotation=degrees, options={"crf": "5"}))
    with open_source(tmp_path / "r.mp4", fps=None) as source:
        assert (source.info.width, source.info.height) == (64, 48)
        assert [number_of(f.image) for f in source] == [0, 1, 2]


def test_a_mirrored_video_comes_out_as_shown(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "m.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(0, hflip=True)
        mirrored = np.ascontiguousarray(numbered(6)[5][:, ::-1])
        container.mux(stream.encode(av.VideoFrame.from_ndarray(mirrored, format="rgb24")))
        container.mux(stream.encode(None))
    with open_source(tmp_path / "m.mp4", fps=None) as source:
        assert number_of(next(source).image) == 5


@pytest.mark.parametrize(
    ("codec", "pixel_format", "size"),
    [
        ("libx264", "yuv444p", (47, 63)),
        ("libx264", "yuv420p10le", (48, 64)),
        ("ffv1", "yuva420p", (47, 63)),
        ("ffv1", "gray", (47, 63)),
        ("ffv1", "gray16le", (47, 63)),
        ("ffv1", "bgra", (1, 1)),
    ],
)
def test_any_pixel_format_and_odd_size_becomes_rgb(
    tmp_path: Path, codec: str, pixel_format: str, size: tuple[int, int]
) -> None:
    need_encoder(codec)
    colour = np.array([200, 30, 60], np.uint8)
    image = np.broadcast_to(colour, (*size, 3)).copy()
    write_video(tmp_path / "c.mkv", [image], codec=Encoding(codec=codec, pixel_format=pixel_format))
    with open_source(tmp_path / "c.mkv", fps=None) as source:
        out = next(source).image
    luma = int(np.round(colour @ [0.299, 0.587, 0.114]))
    expected = np.full(3, luma) if pixel_format.startswith("gray") else colour
    assert out.shape == (*size, 3)
    assert np.abs(out.astype(int) - expected).max() <= 6


def _write_tagged(path: Path, image: Image, matrix: str, tag: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = image.shape[1], image.shape[0], "yuv420p"
        stream.codec_context.colorspace = tag
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p", dst_colorspace=matrix)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(("matrix", "tag"), [("ITU709", 1), ("ITU601", 6)])
def test_the_colour_matrix_of_the_video_is_honoured(tmp_path: Path, matrix: str, tag: int) -> None:
    colour = np.array([200, 30, 60])
    _write_tagged(tmp_path / "c.mp4", np.broadcast_to(colour, (48, 64, 3)).astype(np.uint8).copy(), matrix, tag)
    with open_source(tmp_path / "c.mp4", fps=None) as source:
        assert np.abs(next(source).image.astype(int) - colour).max() <= 4


def test_a_size_that_changes_in_mid_stream_just_comes_out(tmp_path: Path) -> None:
    clip(tmp_path / "a.h264", 5)
    write_video(tmp_path / "b.h264", numbered(5, 96, 128), codec=H264)
    (tmp_path / "ab.h264").write_bytes((tmp_path / "a.h264").read_bytes() + (tmp_path / "b.h264").read_bytes())
    with open_source(tmp_path / "ab.h264", fps=None) as source:
        frames = list(source)
    assert [f.image.shape[:2] for f in frames] == [(48, 64)] * 5 + [(96, 128)] * 5
    assert [f.timestamp_s for f in frames] == pytest.approx(np.arange(10) / 25)


def test_times_that_run_backwards_are_skipped_and_counted(tmp_path: Path) -> None:
    clip(tmp_path / "a.ts", 10)
    data = (tmp_path / "a.ts").read_bytes()
    (tmp_path / "aa.ts").write_bytes(data + data)
    with open_source(tmp_path / "aa.ts", fps=None) as source:
        times = [f.timestamp_s for f in source]
    assert times == sorted(set(times))
    report = source.report
    assert report.decoded + report.errors == 20  # the packet at the seam may be lost to the second header
    assert report.decoded == len(times) + report.skipped_non_monotonic
    assert report.skipped_non_monotonic == 10


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_file_object_gives_the_same_as_the_file(tmp_path: Path, suffix: str) -> None:
    path = clip(tmp_path / f"a.{suffix}", 12)
    with open_source(path, fps=None) as by_path, open_source(io.BytesIO(path.read_bytes()), fps=None) as by_object:
        assert by_path.info.identity == by_object.info.identity
        pairs = list(zip(by_path, by_object, strict=True))
    assert len(pairs) == 12
    assert all(a.timestamp_s == b.timestamp_s and np.array_equal(a.image, b.image) for a, b in pairs)


def test_a_file_object_that_cannot_seek_is_read_as_it_comes(tmp_path: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    path = clip(tmp_path / "a.mkv", 12)
    with open_source(Pipe(path.read_bytes()), fps=None) as source:
        assert [number_of(f.image) for f in source] == list(range(12))


def test_identity_follows_content_not_name(tmp_path: Path) -> None:
    data = clip(tmp_path / "a.mkv", 5).read_bytes()
    (tmp_path / "same: elsewhere.mkv").write_bytes(data)
    (tmp_path / "other.mkv").write_bytes(data + b"\0")
    names = ("a.mkv", "same: elsewhere.mkv", "other.mkv")
    a, same, other = (open_source(tmp_path / name, fps=1.0).info.identity for name in names)
    assert a == same != other


@pytest.mark.parametrize("wrong", [{"fps": 0.0}, {"fps": -1.0}, {"fps": float("nan")}, {"fps": 1.0, "start_seq": -1}])
def test_settings_without_sense_are_refused(tmp_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidConfig):
        open_source(tmp_path, **wrong)  # type: ignore[arg-type]


def test_closing_twice_and_reading_after_is_an_end(tmp_path: Path) -> None:
    source = open_source(clip(tmp_path / "a.mp4", 5), fps=None)
    next(source)
    source.close()
    source.close()
    assert list(source) == []


@pytest.mark.parametrize(
    ("name", "codec", "decoded", "sampled", "size"),
    [
        ("car-detection.mp4", "h264", 377, 31, (768, 432)),
        ("nasa.mp4", "h264", 325, 13, (320, 180)),
        ("h265.mp4", "hevc", 10, 1, (128, 128)),
        ("av1.mkv", "av1", 125, 5, (640, 360)),
        ("bigbuckbunny.mp4", "h264", 132, 6, (1280, 720)),
    ],
)
def test_real_clips_decode_whole(name: str, codec: str, decoded: int, sampled: int, size: tuple[int, int]) -> None:
    with open_source(real_clip(name), fps=1.0) as source:
        frames = list(source)
    assert (source.info.codec, source.info.width, source.info.height) == (codec, *size)
    assert (source.report.decoded, len(frames), source.report.reason) == (decoded, sampled, None)
    assert all(f.image.shape == (size[1], size[0], 3) for f in frames)
    assert all(f.timestamp_s - i < 0.1 for i, f in enumerate(frames))
