"""Reading annotation files: every read names the file, the record and the field when it fails."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cacheflow_ray.errors import BadAnnotations

#: Folders inside a benchmark's in which its videos are looked for.
VIDEO_FOLDERS = ("", "videos", "video", "src_videos")
#: What a video named without its suffix may end in.
VIDEO_SUFFIXES = ("", ".mp4", ".mkv", ".webm", ".avi", ".mov", ".npy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One JSON object of an annotation file.

    Args:
        fields: as read.
        where: "test_mc.json, record 3".
    """

    fields: Mapping[str, Any]
    where: str

    def bad(self, field: str, told: str) -> BadAnnotations:
        """The error of a field that is not as it should be."""
        return BadAnnotations(f"{self.where}: {field!r} {told}", where=self.where, field=field)

    def get(self, field: str) -> Any:
        """A value that must be there. Raises BadAnnotations, as everything here."""
        if field not in self.fields:
            raise self.bad(field, f"is missing; it has {', '.join(map(repr, self.fields)) or 'no fields'}")
        return self.fields[field]

    def text(self, field: str) -> str:
        """Words, not blank."""
        value = self.get(field)
        if not isinstance(value, str) or not value.strip():
            raise self.bad(field, f"is {_short(value)}, where words are needed")
        return value.strip()

    def name(self, field: str) -> str:
        """Words or a whole number, as an identity."""
        value = self.get(field)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(field)

    def texts(self, field: str) -> list[str]:
        """Two or more texts; numbers are taken for their digits."""
        value = self.get(field)
        if not isinstance(value, list) or len(value) < 2 or not all(isinstance(v, str | int | float) for v in value):
            raise self.bad(field, f"is {_short(value)}, where a list of two or more texts is needed")
        return [str(item).strip() for item in value]

    def number(self, field: str) -> float:
        """A finite number, not negative."""
        value = self.get(field)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise self.bad(field, f"is {_short(value)}, where a number of 0 or more is needed")
        return float(value)

    def index(self, field: str, count: int) -> int:
        """A whole number from 0 to count - 1."""
        value = self.number(field)
        if value != int(value) or value >= count:
            raise self.bad(field, f"is {_short(self.get(field))}, where a whole number from 0 to {count - 1} is needed")
        return int(value)

    def seconds(self, field: str) -> float:
        """A time as "HH:MM:SS" or "MM:SS"."""
        parts = self.text(field).split(":")
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            numbers = []
        if not 2 <= len(numbers) <= 3 or not all(0 <= number < math.inf for number in numbers):
            raise self.bad(field, f"is {_short(self.get(field))}, where a time HH:MM:SS is needed")
        seconds = 0.0
        for number in numbers:
            seconds = seconds * 60 + number
        return seconds

    def records(self, field: str) -> list[Record]:
        """A list of objects, one or more."""
        value = self.get(field)
        if not isinstance(value, list) or not value:
            raise self.bad(field, f"is {_short(value)}, where a list of objects is needed")
        return [_record(item, f"{self.where}, {field}[{number}]") for number, item in enumerate(value)]


def read_records(path: Path) -> list[Record]:
    """The objects of a JSON list, or of the lists in it, in order.

    Raises:
        BadAnnotations: no JSON, no list of objects, or an empty one.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BadAnnotations(f"{path}: cannot be read as JSON ({error})", path=str(path)) from error
    if not isinstance(value, list) or not value:
        raise BadAnnotations(f"{path}: holds {_short(value)}, where a list of records is needed", path=str(path))
    return [_record(item, f"{path.name}, record {number}") for number, item in enumerate(_flat(value))]


def find_file(place: Path, names: Sequence[str], benchmark: str) -> Path:
    """The annotation file: `place` itself where it is a file, else the first of `names` in it.

    Raises:
        BadAnnotations: there is none.
    """
    if place.is_file():
        return place
    for name in names:
        if (place / name).is_file():
            return place / name
    told = f"none of {', '.join(names)}" if place.is_dir() else "no such folder"
    raise BadAnnotations(f"{benchmark}: no annotations in {str(place)!r} ({told})", path=str(place))


def find_video(place: Path, record: Record, field: str, *, sample: str = "") -> Path:
    """The video a record names: as it stands, or below the benchmark's folder with as much of its path as is there.

    Args:
        sample: another place below the benchmark's folder to look in.

    Raises:
        BadAnnotations: there is none.
    """
    named = Path(record.text(field))
    folder = place.parent if place.is_file() else place
    parts = [part for part in named.parts if part not in (".", "..", named.anchor)]
    tails = [Path(*parts[start:]) for start in range(len(parts))]
    places = [named, *(folder / inner / tail for tail in tails for inner in VIDEO_FOLDERS)]
    places += [folder / inner / sample for inner in VIDEO_FOLDERS if sample]
    for path in places:
        for suffix in VIDEO_SUFFIXES:
            whole = path.with_name(path.name + suffix)
            if whole.is_file() or (whole.is_dir() and suffix == "" and whole != folder):
                return whole
    raise record.bad(field, f"names {str(named)!r}, and there is no such video below {str(folder)!r}")


def _flat(value: Sequence[Any]) -> Iterator[Any]:
    for item in value:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item


def _record(item: Any, where: str) -> Record:
    if not isinstance(item, dict):
        raise BadAnnotations(f"{where}: is {_short(item)}, where an object is needed", where=where)
    return Record(fields=item, where=where)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."
