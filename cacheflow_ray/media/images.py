"""Images as video: a folder of them, or a single one."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps

from cacheflow_ray.errors import BrokenMedia, UnsupportedMedia
from cacheflow_ray.media.frames import Damage, Image, Picture, SourceInfo

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
#: What Pillow raises on damaged files, beside its OSError for most.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error)
_BOMBS = (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning)


class ImageReader:
    """Images one after another, number i at i / fps seconds. Damaged ones are left out and counted.

    Args:
        files: paths, or file objects of images.
        info: of the source; its size is filled in by the first image.
    """

    tick_s = 0.0

    def __init__(self, files: Sequence[Path | BinaryIO], info: SourceInfo, *, fps: float, max_pixels: int) -> None:
        self._files = files
        self._fps = fps
        self._max_pixels = max_pixels
        self.info = info
        self.damage = Damage()

    def pictures(self) -> Iterator[Picture]:
        return self.pictures_from(0.0)

    def pictures_from(self, timestamp_s: float) -> Iterator[Picture]:
        for i in range(round(timestamp_s * self._fps), len(self._files)):
            try:
                image = load_image(self._files[i], max_pixels=self._max_pixels)
            except BrokenMedia:
                self.damage.errors += 1
                continue
            yield Picture(timestamp_s=i / self._fps, render=partial(np.ascontiguousarray, image))

    def close(self) -> None:
        """Nothing is held open between images."""


def list_images(folder: Path) -> list[Path]:
    """The folder's images in natural order: shot2.png before shot10.png."""
    paths = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    return sorted((p for p in paths if p.is_file()), key=lambda p: (_natural(p.name), p.name))


def _natural(name: str) -> list[int | str]:
    """Text and numbers alternate, so two keys never compare a number with text."""
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(re.split(r"([0-9]+)", name))]


def is_image(head: bytes) -> bool:
    """Whether the first bytes are those of a JPEG, PNG, WebP or BMP."""
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    # "BM" alone begins many a text: the header's reserved words must be zero too.
    is_bmp = head[:2] == b"BM" and head[6:10] == bytes(4)
    return is_webp or is_bmp or head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))


def load_image(file: Path | BinaryIO, *, max_pixels: int) -> Image:
    """uint8 [height, width, 3] RGB, upright (EXIF orientation applied), of any colour mode; alpha is dropped.

    Raises:
        UnsupportedMedia: more than max_pixels.
        BrokenMedia: not an image, or damaged.
    """
    name = str(file) if isinstance(file, Path) else str(getattr(file, "name", "image"))
    try:
        with Pillow.open(file, formats=_FORMATS) as opened:
            if opened.width * opened.height > max_pixels:
                raise _too_large(name, f"is {opened.width}x{opened.height}", max_pixels)
            return _to_rgb(ImageOps.exif_transpose(opened))
    except _BOMBS as error:
        raise _too_large(name, "is huge", max_pixels) from error
    except _DECODE_ERRORS as error:
        raise BrokenMedia(f"{name!r} is not a whole image: copy it again", uri=name) from error


def _too_large(name: str, what: str, max_pixels: int) -> UnsupportedMedia:
    return UnsupportedMedia(f"{name!r} {what}, above the limit of {max_pixels} pixels: scale it down", uri=name)


def _to_rgb(image: Pillow.Image) -> Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it to white
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))
    return np.array(image.convert("RGB"), dtype=np.uint8)
