"""What a stream was made from: noted in its record when it is made, opened again when some of its KV is wanted back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cacheflow_ray.engine.catalog import READ_FROM, SOURCE_URI
from cacheflow_ray.errors import MediaError, SourceNotFound
from cacheflow_ray.media import FrameSource, SourceInfo, open_source
from memory_store.records import JsonValue

#: Addresses that are opened again.
_REPEATABLE = ("http://", "https://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Which sources may be opened again: every http address, and files below `root` (None: no file)."""

    root: Path | None = Path("/")

    def refusal(self, uri: str) -> str | None:
        """Why it may not, or cannot, be opened; None where it may."""
        if "://" in uri:
            return None if uri.startswith(_REPEATABLE) else f"source {uri!r} cannot be read twice"
        try:
            path = Path(uri).resolve()
            if self.root is None or not path.is_relative_to(self.root.resolve()):
                return f"source {uri!r} may not be read here: it is not below --source-root"
            if not path.exists():
                return f"source {uri!r} is gone"
            return None if path.is_file() or path.is_dir() else f"source {uri!r} is neither file nor folder"
        except (OSError, RuntimeError) as error:  # may not be looked at, or links to itself
            return f"source {uri!r} cannot be found ({error})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNote:
    """What a record says of where its stream came from.

    Args:
        uri: absolute path or address.
        identity: `SourceInfo.identity` of what was read; "" where nobody noted it.
    """

    uri: str
    identity: str

    @classmethod
    def of(cls, settings: Mapping[str, JsonValue], elsewhere: str | None = None) -> SourceNote | None:
        """Of a record's settings; None: the stream was pushed, or made when nothing was noted.

        Args:
            elsewhere: where the source is by now.
        """
        if elsewhere is not None and "://" not in elsewhere:
            elsewhere = str(Path(elsewhere).absolute())
        uri = elsewhere or settings.get(SOURCE_URI) or settings.get(READ_FROM)
        return cls(uri=str(uri), identity=str(settings.get("source_identity") or "")) if uri else None

    def open_at(
        self, seq: int, timestamp_s: float, *, fps: float | None, access: Access, wanted: Callable[[], bool]
    ) -> FrameSource:
        """The source's frames from one on that the stream has, as a full run gives them.

        Args:
            seq, timestamp_s: of that frame.
            fps: the stream's.
            wanted: as of `open_source`.

        Raises:
            MediaError: it may not be read, or is gone, damaged, or not what it was.
        """
        refusal = access.refusal(self.uri)
        if refusal is not None:
            raise SourceNotFound(refusal, uri=self.uri)
        source = open_source(self.uri, fps=fps, wanted=wanted)
        try:
            self._check(source.info)
            if source.go_on_at(seq, timestamp_s):
                return source
        except BaseException:
            source.close()
            raise
        source.close()
        return open_source(self.uri, fps=fps, start_seq=seq, wanted=wanted)

    def changed(self, how: str) -> MediaError:
        """What to raise when it is not what it was."""
        return MediaError(f"source {self.uri!r} is not what the stream was made from: {how}", uri=self.uri)

    def _check(self, info: SourceInfo) -> None:
        if info.is_live:
            raise MediaError(f"source {self.uri!r} is a camera, which shows nothing twice", uri=self.uri)
        if self.identity and not info.is_address and info.identity != self.identity:
            raise self.changed("its size or content differs")


def address_of(source: str | Path | BinaryIO, info: SourceInfo) -> str | None:
    """What a record may keep of a source, to open it by again; None where that cannot be (pipes, cameras, objects)."""
    if not isinstance(source, str | Path) or info.is_live:
        return None
    if isinstance(source, str) and "://" in source:
        return info.uri
    return None if info.is_address else str(Path(source).absolute())
