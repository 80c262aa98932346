"""What a service may read for those who call it: remote addresses, and files below one folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cacheflow_ray.archive.finding import Found
from cacheflow_ray.errors import UsageError

#: Schemes that lead away from the machine. fsspec knows others, which open its files ("file", "local", "dir", ...).
REMOTE = frozenset({"abfs", "abfss", "az", "ftp", "gcs", "gs", "hdfs", "http", "https", "s3", "s3a", "webhdfs"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Says what may be read. `root`: files below it; None: no file at all."""

    root: Path | None

    def source(self, source: str) -> str:
        """A source as it is to be looked for; a path is below the root, or from there.

        Raises:
            UsageError: it may not be read.
        """
        refusal = self._refusal(source)
        if refusal:
            raise UsageError(refusal, uri=source)
        return source if self.root is None or "://" in source else str((self.root / source).resolve())

    def refusal(self, found: Found) -> str:
        """Why a file must be left alone; "" where it need not. Symbolic links count as what they lead to."""
        if found.is_named and not _NAME.fullmatch(found.name):
            return f"{found.name!r:.160} is no name of a stream: use 1 to 128 letters, digits, '.', '_' or '-'"
        return self._refusal(found.uri)

    def _refusal(self, uri: str) -> str:
        scheme, marks, _ = uri.partition("://")
        if marks:
            if scheme.lower() in REMOTE and "::" not in uri:
                return ""
            return f"the service opens no address like {uri!r:.160}: use one of {', '.join(sorted(REMOTE))}"
        try:
            is_below = self.root is not None and (self.root / uri).resolve().is_relative_to(self.root.resolve())
        except (OSError, ValueError, RuntimeError):  # too long, or holds NUL, or links to itself
            is_below = False
        if is_below and "::" not in uri:
            return ""
        return f"the service reads no file {uri!r:.160}: give an address, or one below its --source-root"
