"""ffmpeg's errors as this package's own, through one context manager."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from av import error as averror

from cacheflow_ray.errors import BrokenMedia, MediaError, SourceNotFound, UnsupportedMedia

#: What reading may raise: ffmpeg's own errors, and those of a file object it reads through.
READ_ERRORS = (averror.FFmpegError, OSError, ValueError)

_MISSING = (averror.FileNotFoundError, averror.HTTPNotFoundError)
_FORBIDDEN = (averror.PermissionError, averror.HTTPForbiddenError, averror.HTTPUnauthorizedError)
_FOREIGN = (
    averror.ProtocolNotFoundError,
    averror.DecoderNotFoundError,
    averror.DemuxerNotFoundError,
    averror.PatchWelcomeError,
    averror.NotImplementedError,
)
_NOT_MEDIA = (averror.InvalidDataError, averror.EOFError)


@contextmanager
def naming_errors(uri: str, *, is_address: bool, head: bytes) -> Iterator[None]:
    """Turns what opening a source may raise into one line of a MediaError.

    Args:
        head: the first bytes of the source, if known: they tell a damaged video from a file that never was one.
    """
    try:
        yield
    except READ_ERRORS as error:
        raise _translate(error, uri, is_address, head) from error


def _translate(error: Exception, uri: str, is_address: bool, head: bytes) -> MediaError:
    if isinstance(error, _MISSING):
        return SourceNotFound(f"nothing found at {uri!r}: check the path or address", uri=uri)
    if isinstance(error, _FORBIDDEN):
        return SourceNotFound(f"{uri!r} may not be read: check its permissions", uri=uri)
    if isinstance(error, _FOREIGN):
        return UnsupportedMedia(f"{uri!r} cannot be decoded here ({error.strerror}): convert it to H.264", uri=uri)
    if is_address and not isinstance(error, _NOT_MEDIA):
        return SourceNotFound(f"{uri!r} cannot be reached ({_cause(error)}): check the address and network", uri=uri)
    if looks_like_video(head):
        return BrokenMedia(f"{uri!r} is cut short or damaged ({_cause(error)}): copy or record it again", uri=uri)
    return UnsupportedMedia(f"{uri!r} is not a video or image this build can read: give another file", uri=uri)


def _cause(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def looks_like_video(head: bytes) -> bool:
    """Whether the first bytes are those of mp4/mov, Matroska/WebM, AVI, MPEG-TS or a raw H.264/HEVC stream."""
    is_mp4 = head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")
    is_avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    is_ts = head[:1] == b"\x47" and (len(head) <= 188 or head[188:189] == b"\x47")
    return is_mp4 or is_avi or is_ts or head.startswith((b"\x1a\x45\xdf\xa3", b"\0\0\0\1"))
