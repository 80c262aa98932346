"""Decoded pictures go away with the last reference: a collector that runs late must not hold seconds of video."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest

from cacheflow_ray.media import open_source, write_video
from cacheflow_ray.media.write import Encoding


@pytest.mark.parametrize("rotation", [0, 90])
def test_nothing_of_a_decoded_frame_waits_for_the_garbage_collector(tmp_path: Path, rotation: int) -> None:
    path = tmp_path / "clip.mp4"
    write_video(
        path, [np.full((32, 48, 3), 9 * i, np.uint8) for i in range(20)], fps=5, codec=Encoding(rotation=rotation)
    )
    gc.collect()
    gc.disable()
    try:
        with open_source(path, fps=None) as source:
            images = [weakref.ref(frame.image) for frame in source]
        waiting = [thing for thing in gc.get_objects() if type(thing).__name__ in ("VideoFrame", "SideDataContainer")]
    finally:
        gc.enable()

    assert len(images) == 20
    assert len(waiting) <= 1  # one that the decoder keeps ready
    assert sum(image() is not None for image in images) <= 1  # the last one, by the name `frame`
