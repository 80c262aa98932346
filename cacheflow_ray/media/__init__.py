"""Video in, frames out: the only importer of av.

    open_source -> FrameSource -> [prefetch] -> Frame (seq, timestamp_s, image)

`video` decodes containers, `images` folders; `sample` picks frames by time; `clock` and `extent` know timestamps and
where a stream should end; `thumbnails` and `write` go the other way.
"""

from cacheflow_ray.media.frames import MAX_PIXELS, DecodeReport, Frame, SourceInfo
from cacheflow_ray.media.images import load_image
from cacheflow_ray.media.prefetch import prefetch
from cacheflow_ray.media.source import FrameSource, identity_of, open_source
from cacheflow_ray.media.thumbnails import picture_distance, thumbnail
from cacheflow_ray.media.write import Encoding, write_video

__all__ = [
    "MAX_PIXELS",
    "DecodeReport",
    "Encoding",
    "Frame",
    "FrameSource",
    "SourceInfo",
    "identity_of",
    "load_image",
    "open_source",
    "picture_distance",
    "prefetch",
    "thumbnail",
    "write_video",
]
