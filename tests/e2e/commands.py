"""What a command printed, and what a store holds afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memory_store import Store
from memory_store.records import TOKEN_DTYPE, StreamState

MODEL = "random:tiny-llava-onevision"

#: Small blocks and a window of a few of them; every token kept, so that all that was decoded can be counted.
SMALL = ("--fps", "all", "--tau", "2", "--block-size", "24", "--window", "3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A finished command; `out` is what it printed on stdout, with --json."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> Any:
        """The JSON object of a command that did what it was asked."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    def refused(self, kind: str, code: int, *words: str) -> None:
        """One line on stderr, with these words in it; the object on stdout is the error; nothing else anywhere."""
        assert self.code == code, self.err
        assert self.err.startswith("error: ") and self.err.count("\n") == 1, self.err
        for word in words:
            assert word in self.err
        error = json.loads(self.out)["error"]
        assert (error["type"], f"error: {error['message']}\n") == (kind, self.err)


Command = Callable[..., Ran]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stored:
    """Everything a store holds of a stream, every byte of it verified on the way. `kv`: [L, 2, H, N * B, D]."""

    state: StreamState | None
    tokens: np.ndarray
    kv: np.ndarray
    thumbnails: list[bytes | None]

    def starts_with(self, other: Stored) -> bool:
        """Whether the blocks of `other` come first in this one, the same to the bit."""
        count = len(other.tokens)
        same_kv = not count or np.array_equal(self.kv[:, :, :, :count].view(np.uint32), other.kv.view(np.uint32))
        return np.array_equal(self.tokens[:count], other.tokens) and same_kv

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Stored):
            return NotImplemented
        alike = (self.state, self.thumbnails, len(self.tokens)) == (other.state, other.thumbnails, len(other.tokens))
        return alike and self.starts_with(other)


def stored(data: Path, stream: str) -> Stored:
    with Store.open(data, read_only=True) as store:
        record, count = store.get_stream(stream), store.stats(stream).num_blocks
        kv = np.empty((0,) * 5, np.float32)
        tokens: list[np.ndarray] = []
        if count:
            with store.reader(stream, range(count), fingerprint=record.fingerprint) as reader:
                layers, _, heads, size, width = reader.shape
                kv = np.empty((layers, 2, heads, count * size, width), reader.dtype)
                reader.read(range(layers), kv[:, 0], kv[:, 1])
                tokens = list(reader.tokens)
        return Stored(
            state=store.load_state(stream),
            tokens=np.concatenate(tokens) if tokens else np.empty(0, TOKEN_DTYPE),
            kv=kv,
            thumbnails=store.read_thumbnails(stream, range(count)),
        )
