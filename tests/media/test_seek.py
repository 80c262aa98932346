"""Going on at a frame in mid-stream gives the frames of a full run: numbers, times and every pixel."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from cacheflow_ray.media import Encoding, Frame, identity_of, open_source, picture_distance, thumbnail, write_video
from tests.media.clips import clip, need_encoder, numbered, real_clip
from tests.oracles import moving_frames

CODECS = {
    "b-frames.mp4": Encoding(options={"g": "20", "bf": "3"}),
    "b-frames.mkv": Encoding(options={"g": "20", "bf": "3"}),
    "open-gop.mp4": Encoding(options={"x264-params": "open-gop=1:keyint=20:bframes=4"}),
    "open-gop.ts": Encoding(options={"x264-params": "open-gop=1:keyint=20:bframes=4"}),
    "one-gop.mp4": Encoding(options={"g": "9999", "bf": "3"}),
    "hevc.mp4": Encoding(codec="libx265", options={"x265-params": "keyint=20:bframes=4:open-gop=1:log-level=0"}),
    "vp9.webm": Encoding(codec="libvpx-vp9", options={"g": "20", "deadline": "realtime"}),
    "av1.mkv": Encoding(codec="libsvtav1", options={"g": "20", "preset": "12"}),
    "mpeg2.ts": Encoding(codec="mpeg2video", options={"g": "12", "bf": "2"}),
}


def everything(path: Path, fps: float | None) -> list[Frame]:
    with open_source(path, fps=fps) as source:
        return list(source)


def assert_goes_on(path: Path, fps: float | None, full: list[Frame], place: int, count: int = 6) -> bool:
    """Whether the frame was found; what follows must be right."""
    with open_source(path, fps=fps) as source:
        if not source.go_on_at(full[place].seq, full[place].timestamp_s):
            return False
        found = list(itertools.islice(source, count))
    wanted = full[place : place + count]
    assert [(frame.seq, frame.timestamp_s) for frame in found] == [(frame.seq, frame.timestamp_s) for frame in wanted]
    assert all(np.array_equal(one.image, other.image) for one, other in zip(found, wanted, strict=True))
    return True


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("fps", [None, 3.0])
def test_frames_after_a_seek_are_those_of_a_full_run(tmp_path: Path, name: str, fps: float | None) -> None:
    path = clip(tmp_path / name, 70, fps=10, encoding=CODECS[name])
    full = everything(path, fps)
    found = [assert_goes_on(path, fps, full, at) for at in (0, len(full) // 3, len(full) // 2, len(full) - 1)]
    assert all(found[2:]), "near its start MPEG-TS may have to be read as a whole"


@pytest.mark.parametrize("name", ["bigbuckbunny.mp4", "car-detection.mp4", "h265.mp4", "nasa.mp4", "av1.mkv"])
def test_real_clips_are_gone_on_with_exactly(name: str) -> None:
    path = real_clip(name)
    full = everything(path, 2.0)
    assert all(assert_goes_on(path, 2.0, full, at) for at in {0, len(full) // 2, len(full) - 1})


def test_a_picture_that_is_refreshed_bit_by_bit_is_never_given_half_good(tmp_path: Path) -> None:
    """Its "keyframes" are none: a decoder that begins there shows the old picture's remains for a while."""
    need_encoder("libx264")
    path, encoding = (
        tmp_path / "refreshed.mkv",
        Encoding(options={"x264-params": "intra-refresh=1:keyint=20:bframes=0"}),
    )
    write_video(path, [frame.image for frame in moving_frames(110)], fps=10, codec=encoding)
    full = everything(path, None)
    found = [assert_goes_on(path, None, full, at) for at in range(5, 110, 8)]
    assert any(found), "from the start, where the stream begins whole"


@pytest.mark.parametrize("name", ["old.avi", "bare.h264"])
def test_what_can_only_be_read_from_its_start_says_so(tmp_path: Path, name: str) -> None:
    path = clip(tmp_path / name, 30, encoding=CODECS["b-frames.mp4"])
    full = everything(path, None)
    with open_source(path, fps=None) as source:
        assert not source.go_on_at(20, full[20].timestamp_s)
        assert list(source) == []
    with open_source(path, fps=None, start_seq=20) as source:
        assert next(source).seq == 20


def test_a_time_at_which_there_is_no_picture_is_not_found(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 30, fps=10)
    with open_source(path, fps=None) as source:
        assert not source.go_on_at(12, 1.25)
        assert not source.go_on_at(99, 9.9)
        assert source.go_on_at(12, 1.2)
        assert next(source).seq == 12


def test_reading_ends_when_it_is_not_wanted_any_more(tmp_path: Path) -> None:
    path, left = clip(tmp_path / "a.mp4", 30, fps=10), [8]

    def wanted() -> bool:
        left[0] -= 1
        return left[0] >= 0

    with open_source(path, fps=None, wanted=wanted) as source:
        assert len(list(source)) == 8 + 1  # the first was read to open it
        assert not source.go_on_at(12, 1.2)


def test_images_are_gone_on_with_by_their_place(tmp_path: Path) -> None:
    from PIL import Image

    for number, image in enumerate(numbered(12)):
        Image.fromarray(image).save(tmp_path / f"{number:03d}.png")
    (tmp_path / "003.png").write_bytes(b"no image")
    full = everything(tmp_path, 2.0)
    assert len(full) == 11
    assert assert_goes_on(tmp_path, 2.0, full, 7)


def test_identity_is_known_without_decoding(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 5)
    with open_source(path, fps=None) as source:
        assert identity_of(path) == source.info.identity
    assert identity_of(tmp_path / "nothing.mp4") == ""


def test_thumbnails_tell_other_pictures_apart() -> None:
    one, other = (thumbnail(image) for image in numbered(2))
    assert picture_distance(one, one) == 0
    assert picture_distance(one, other) > 2
    image = numbered(1)[0]
    assert 0 < picture_distance(thumbnail(image), thumbnail(image, quality=85)) < 2
    assert picture_distance(one, thumbnail(numbered(1, 50, 80)[0])) == float("inf")
