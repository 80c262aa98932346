"""A library of short videos in three codecs, with all that goes wrong in one, and what should become of every file."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cacheflow_ray.archive.records import FileState
from cacheflow_ray.media import Encoding, write_video
from tests.oracles import FPS, moving_frames

_CODECS = (
    (".mp4", Encoding(codec="libx264", options={"preset": "ultrafast"})),
    (".mkv", Encoding(codec="libx265", options={"preset": "ultrafast", "x265-params": "log-level=none"})),
    (".webm", Encoding(codec="libsvtav1", options={"preset": "12"})),
)


def write_library(folder: Path, count: int) -> Mapping[Path, FileState]:
    """Of ten files, one is broken, one has the content of another, one is no video; seven are good.

    Returns:
        What each is to end as. Of two files with one content, either is the one that is indexed: both are said to be
        DONE, and `doubles` tells which they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    expected: dict[Path, FileState] = {}
    last = folder
    for number in range(count):
        inside = folder / f"shelf-{number // 50}"
        inside.mkdir(exist_ok=True)
        match number % 10:
            case 3:
                path = inside / f"broken-{number:03}.mp4"
                _write_broken(path, number)
                expected[path] = FileState.FAILED
            case 7:
                path = inside / f"copy-{number:03}{last.suffix}"
                shutil.copyfile(last, path)
                expected[path] = FileState.DONE
            case 9:
                path = inside / f"notes-{number:03}.txt"
                path.write_text(f"not a video: {number}")
                expected[path] = FileState.SKIPPED
            case _:
                suffix, encoding = _CODECS[number % 3]
                path = last = inside / f"video-{number:03}{suffix}"
                frames = moving_frames(8 + number % 5 * 4, seed=number)
                write_video(path, [frame.image for frame in frames], fps=FPS, codec=encoding)
                expected[path] = FileState.DONE
    return expected


def doubles(files: Mapping[Path, FileState]) -> list[tuple[Path, Path]]:
    """Pairs of files with one content."""
    by_content: dict[bytes, Path] = {}
    found = []
    for path, state in files.items():
        content = path.read_bytes()
        if state is FileState.DONE and content in by_content:
            found.append((by_content[content], path))
        by_content.setdefault(content, path)
    return found


def _write_broken(path: Path, number: int) -> None:
    """Noise, a file whose index was never written, or nothing at all."""
    match number // 10 % 3:
        case 0:
            path.write_bytes(np.random.default_rng(number).bytes(5000))
        case 1:
            write_video(path, [frame.image for frame in moving_frames(8, seed=number)], fps=FPS)
            path.write_bytes(path.read_bytes()[:2000])
        case _:
            path.touch()
