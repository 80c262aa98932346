"""A sealed part of a library: vectors compressed in inverted lists, never changed again, of which rows may be dead.

Row r of a segment is its r-th lowest id, and FAISS knows rows, not ids: ranges of ids are then ranges of rows, and a
selection of rows is one bit each. Measured over 200,000 rows, 64 lists probed: no filter 0.36 ms, one range 0.22,
bits 0.40, a range of ranges 0.25 to 0.44, a set of ids (IDSelectorBatch) 2.2 and 4.0 to make.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import faiss
import numpy as np

from memory_store.library.ids import within
from memory_store.records import Array

#: Vectors [n, H * D] float32, normalised head by head, of `ids` [n].
Load: TypeAlias = Callable[[Array], Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """How a segment keeps a vector.

    Args:
        make: an untrained index from the coarse quantizer, the dimension and the number of lists.
        over_fetch: candidates to rerank per vector wanted.
        can_recode: whether what it decodes is near enough to the vector to be sealed again.
    """

    make: Callable[[faiss.IndexFlatIP, int, int], faiss.IndexIVF]
    over_fetch: float
    can_recode: bool


def _sq8(quantizer: faiss.IndexFlatIP, dim: int, num_lists: int) -> faiss.IndexIVF:
    kind = faiss.ScalarQuantizer.QT_8bit
    return faiss.IndexIVFScalarQuantizer(quantizer, dim, num_lists, kind, faiss.METRIC_INNER_PRODUCT)


def _rabitq(quantizer: faiss.IndexFlatIP, dim: int, num_lists: int) -> faiss.IndexIVF:
    return faiss.IndexIVFRaBitQ(quantizer, dim, num_lists, faiss.METRIC_INNER_PRODUCT)


#: Measured at 200,000 x 128, 64 wanted: with enough candidates the lists probed alone decide the recall. sq8 takes 139
#: bytes and 80 candidates, rabitq 35 bytes and 512; a candidate costs a read of its summary, so sq8 is the default.
CODECS = {
    "sq8": Codec(make=_sq8, over_fetch=1.25, can_recode=True),
    "rabitq": Codec(make=_rabitq, over_fetch=8.0, can_recode=False),
}

#: k-means sees so many vectors per list, in so many rounds.
_SAMPLE_PER_LIST, _ROUNDS = 64, 10
_MAX_LISTS = 8192
_SEED = 1234
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Args: ids: int64 [n], ascending. alive: bool [n]. index: rows 0..n-1. key: the same for all views of an index."""

    key: int
    ids: Array
    alive: Array
    index: faiss.IndexIVF

    @property
    def num_dead(self) -> int:
        return len(self.ids) - int(np.count_nonzero(self.alive))

    @property
    def num_bytes(self) -> int:
        """Of memory: codes, rows, ids, flags, and the centres of the lists."""
        per_row = self.index.code_size + 8 + self.ids.itemsize + self.alive.itemsize
        return len(self.ids) * per_row + 4 * self.index.nlist * self.index.d

    def without(self, dead: Array) -> Segment:
        """A view in which the rows of `dead`, bool [n], are gone too."""
        return replace(self, alive=self.alive & ~dead)

    def search(self, query: Array, limit: int, ranges: Array | None, num_probes: int) -> tuple[Array, Array]:
        """`limit` ids near `query` [H * D], all there are when fewer, with approximate inner products.

        Args:
            ranges: disjoint [R, 2], or None for all.
            num_probes: lists to look into; proportionally more when a filter leaves few of their rows, and all when
                those hold too few.
        """
        selector, count = self._selector(ranges)
        if not count:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        for probes in (math.ceil(num_probes * len(self.ids) / count), self.index.nlist):
            params = faiss.SearchParametersIVF(  # type: ignore[call-arg]
                sel=selector, nprobe=min(probes, self.index.nlist)
            )
            products, rows = (part[0] for part in self.index.search(query[None], min(limit, count), params=params))
            if rows[-1] >= 0:  # FAISS gives row -1 for want of more
                break
        return self.ids[rows], products

    def decoded(self, ids: Array) -> tuple[Array, Array]:
        """Which of `ids`, ascending [n], are in here, bool [n], and their vectors about as they were, float32."""
        start, stop = np.searchsorted(self.ids, ids[[0, -1]], side="left").tolist()
        stop = min(stop + 1, len(self.ids))
        if start >= stop:
            return np.zeros(len(ids), bool), np.empty((0, self.index.d), np.float32)
        own = self.ids[start:stop]
        at = np.minimum(np.searchsorted(own, ids), len(own) - 1)
        mine = own[at] == ids
        return mine, self.index.reconstruct_n(start, stop - start)[at[mine]]

    def _selector(self, ranges: Array | None) -> tuple[faiss.IDSelector | None, int]:
        """What tells FAISS which rows may be found, and how many those are."""
        if ranges is None:
            spans = [(0, len(self.ids))]
        else:
            starts = np.searchsorted(self.ids, ranges[:, 0], side="left")
            stops = np.searchsorted(self.ids, ranges[:, 1], side="right")
            spans = [(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True) if start < stop]
        if self.num_dead or len(spans) > 1:
            rows = np.zeros(len(self.ids), bool)
            for start, stop in spans:
                rows[start:stop] = self.alive[start:stop]
            bits = np.packbits(rows, bitorder="little")
            return faiss.IDSelectorBitmap(bits), int(np.count_nonzero(rows))  # type: ignore[call-arg, arg-type]
        start, stop = spans[0] if spans else (0, 0)
        everything = stop - start == len(self.ids)
        return None if everything else faiss.IDSelectorRange(start, stop, True), stop - start


def dead_rows(segment: Segment, ranges: Array) -> Array:
    """bool [n]: rows of the segment within the disjoint `ranges` [R, 2] that are still alive."""
    return segment.alive & within(segment.ids, ranges)


def build(key: int, ids: Array, load: Load, codec: str) -> Segment:
    """Seal the vectors of `ids` [n], n >= 1, ascending: the same bytes for the same vectors."""
    num_lists = max(1, min(_MAX_LISTS, int(2 * math.sqrt(len(ids)))))
    num_samples = min(len(ids), _SAMPLE_PER_LIST * num_lists)
    sample = np.sort(np.random.default_rng(_SEED).choice(len(ids), num_samples, replace=False))
    chunks = range(0, len(ids), _CHUNK)
    parts = np.split(ids[sample], np.searchsorted(sample, chunks[1:]))
    training = np.concatenate([load(part) for part in parts if len(part)])
    dim = training.shape[1]
    index = CODECS[codec].make(faiss.IndexFlatIP(dim), dim, num_lists)
    index.cp.seed, index.cp.niter = _SEED, _ROUNDS
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _SAMPLE_PER_LIST
    index.train(training)
    for start in chunks:
        chunk = ids[start : start + _CHUNK]
        index.add_with_ids(load(chunk), np.arange(start, start + len(chunk)))
    return Segment(key=key, ids=ids, alive=np.ones(len(ids), bool), index=index)
