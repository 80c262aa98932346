"""What there is to index: folders walked, patterns and manifests read, here or at any address fsspec opens.

A manifest is a .csv (with a header) or a .jsonl; each row has a `uri`, absolute or relative to the manifest, and may
have `stream`, `labels` (an object, or 'k=v;k=v'; in a .csv also columns 'label.k') and `start`, when it was recorded.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from cacheflow_ray.errors import SourceNotFound, UsageError

VIDEO_SUFFIXES = frozenset({
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc", ".ivf", ".m2ts", ".m2v",
    ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".obu", ".ogm", ".ogv", ".rm",
    ".ts", ".vob", ".webm", ".wmv", ".y4m",
})  # fmt: skip
_MANIFESTS = (".csv", ".jsonl", ".ndjson")
_MAGIC = "*?["


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file to be looked at.

    Args:
        uri: absolute path or address.
        name: what its stream is to be called after; or, `is_named`, called.
        is_video: by its name; None where it was asked for by name, and is tried whatever it is called.
    """

    uri: str
    name: str
    is_named: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    start: str = ""
    is_video: bool | None = None


def find(sources: Sequence[str]) -> list[Found]:
    """Every file that folders, patterns, manifests, files and addresses stand for, each once, in order of its uri.

    Hidden files and folders are passed by.

    Raises:
        SourceNotFound: one of `sources` stands for nothing. UsageError: a manifest's row is not as it has to be, or
        an address needs a package that is not installed.
    """
    found: dict[str, Found] = {}
    for source in sources:
        for own in _found(source):
            if own.uri not in found or own.is_named:
                found[own.uri] = own
    return [found[uri] for uri in sorted(found)]


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec filesystem of an absolute path or address, and the path there. Raises: UsageError."""
    try:
        fs, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{uri!r} cannot be read: {error}", uri=uri) from None
    return fs, path


def _found(source: str) -> Iterator[Found]:
    uri = source if "://" in source else str(Path(source).expanduser().absolute())
    fs, path = filesystem(uri)
    if path.lower().endswith(_MANIFESTS):
        return _in_manifest(uri)
    if uri.startswith(("http://", "https://")):  # a server lists nothing that could be relied upon
        return iter([Found(uri=uri, name=PurePosixPath(path.split("?")[0]).stem)])
    if any(sign in path for sign in _MAGIC) and not fs.exists(path):
        return _listed(fs, fs.glob(path), re.split(r"[*?[]", path)[0].rpartition("/")[0], source)
    if fs.isdir(path):
        return _listed(fs, fs.find(path), path, source)
    if not fs.exists(path):
        raise SourceNotFound(f"there is nothing at {source!r}: check the path", uri=source)
    return iter([Found(uri=fs.unstrip_protocol(path).removeprefix("file://"), name=PurePosixPath(path).stem)])


def _listed(fs: Any, paths: Sequence[str], root: str, source: str) -> Iterator[Found]:
    files = [path for path in paths if not _is_hidden(posixpath.relpath(path, root or "/")) and not fs.isdir(path)]
    if not files:
        raise SourceNotFound(f"{source!r} holds no files: check the path", uri=source)
    for path in files:
        inside = PurePosixPath(posixpath.relpath(path, root or "/"))
        yield Found(
            uri=fs.unstrip_protocol(path).removeprefix("file://"),
            name=str(inside.with_suffix("")),
            is_video=inside.suffix.lower() in VIDEO_SUFFIXES,
        )


def _is_hidden(inside: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(inside).parts)


def _in_manifest(manifest: str) -> Iterator[Found]:
    fs, path = filesystem(manifest)
    try:
        text = fs.cat_file(path).decode("utf-8-sig")
    except FileNotFoundError:
        raise SourceNotFound(f"there is no manifest {manifest!r}: check the path", uri=manifest) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"manifest {manifest!r} is not UTF-8 ({error.reason} at byte {error.start})") from None
    rows = _csv_rows(text) if path.lower().endswith(".csv") else _json_rows(text, manifest)
    base = manifest.rpartition("/")[0]
    for number, row in rows:
        yield _from_row(row, base, f"{manifest}:{number}")


def _csv_rows(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
        labels = _pairs(row.pop("labels", None) or "")
        labels |= {name[6:]: row.pop(name) or "" for name in list(row) if name and name.startswith("label.")}
        yield number, {name: value for name, value in row.items() if value} | {"labels": labels}


def _json_rows(text: str, manifest: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{manifest}:{number}: this is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise UsageError(f"{manifest}:{number}: a row has to be an object with a uri")
        if isinstance(row.get("labels"), str):
            row["labels"] = _pairs(row["labels"])
        yield number, row


def _pairs(text: str) -> dict[str, str]:
    """'k=v;k=v'."""
    return {name.strip(): value.strip() for name, _, value in (pair.partition("=") for pair in text.split(";")) if name}


def _from_row(row: dict[str, Any], base: str, where: str) -> Found:
    unknown = row.keys() - {"uri", "stream", "labels", "start"}
    if unknown:
        raise UsageError(f"{where}: unknown column {sorted(map(str, unknown))[0]!r}: use uri, stream, labels, start")
    uri, stream, labels = row.get("uri"), row.get("stream"), row.get("labels") or {}
    if not isinstance(uri, str) or not uri:
        raise UsageError(f"{where}: a row has to have a uri")
    if not isinstance(labels, dict) or not all(isinstance(part, str) for pair in labels.items() for part in pair):
        raise UsageError(f"{where}: labels have to be names and texts")
    if "://" not in uri and not uri.startswith("/"):
        uri = f"{base}/{uri}"
    if "://" not in uri:
        uri = str(Path(uri).absolute())
    name = str(stream) if stream else PurePosixPath(uri.split("?")[0]).stem
    return Found(uri=uri, name=name, is_named=bool(stream), labels=labels, start=str(row.get("start") or ""))
