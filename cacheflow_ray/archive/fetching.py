"""A file's bytes: hashed, and on a disk of this machine, wherever it is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from xxhash import xxh3_128

from cacheflow_ray.archive.finding import filesystem
from cacheflow_ray.errors import SourceNotFound

_PIECE = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file that can be opened.

    Args:
        path: of it, or of a copy that goes when it is no longer needed.
        content: XXH3-128 of its bytes, hexadecimal.
    """

    path: Path
    content: str


@contextmanager
def fetched(uri: str) -> Iterator[Fetched]:
    """Raises: SourceNotFound: there is no such file, or it may not be read. OSError: it cannot be read now."""
    try:
        if "://" not in uri:
            with open(uri, "rb") as file:
                content = _hashed(file)
            yield Fetched(path=Path(uri), content=content)
            return
        with tempfile.TemporaryDirectory(prefix="cacheflow-") as folder:
            copy = Path(folder) / Path(uri.split("?")[0]).name
            fs, path = filesystem(uri)
            with fs.open(path, "rb") as file, open(copy, "wb") as out:
                content = _hashed(file, out)
            yield Fetched(path=copy, content=content)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise SourceNotFound(f"{uri!r} cannot be read ({error.strerror or error}): check the path", uri=uri) from None


def facts(uri: str) -> tuple[int | None, float | None]:
    """Size in bytes and Unix time of the last change; None where they are not told without reading the file."""
    if "://" in uri:
        return None, None
    try:
        stat = Path(uri).stat()
    except OSError:
        return None, None
    return stat.st_size, stat.st_mtime


def _hashed(file: BinaryIO, copy: BinaryIO | None = None) -> str:
    digest = xxh3_128()
    while piece := file.read(_PIECE):
        digest.update(piece)
        if copy is not None:
            copy.write(piece)
    return digest.hexdigest()
