"""Ids that hold stream, block and ordinal, and what is computed on them alone."""

from __future__ import annotations

import numpy as np
import pytest

from memory_store import InvalidRecord
from memory_store.library import best_of_blocks, block_range, split_ids, stream_range, vector_ids


def test_ids_hold_stream_block_and_ordinal() -> None:
    ids = vector_ids(2**23 - 1, range(2**32 - 2, 2**32), 256)

    streams, blocks, ordinals = split_ids(ids)

    assert ids.dtype == np.int64 and ids[-1] == 2**63 - 1
    assert set(streams.tolist()) == {2**23 - 1}
    assert blocks.tolist() == [2**32 - 2] * 256 + [2**32 - 1] * 256
    assert ordinals.tolist() == [*range(256), *range(256)]
    assert block_range(2**23 - 1, range(2**32 - 2, 2**32)) == (ids[0], ids[-1])


def test_ranges_of_streams_are_disjoint_and_leave_nothing_out() -> None:
    (_, last), (first, _) = stream_range(6), stream_range(7)

    assert first == last + 1
    assert block_range(6, range(5, 5)) == (block_range(6, range(5, 6))[0], block_range(6, range(0, 5))[1])


@pytest.mark.parametrize(
    ("stream", "blocks", "vectors"),
    [
        (2**23, range(1), 1),
        (-1, range(1), 1),
        (0, range(2**32 + 1), 1),
        (0, range(-1, 1), 1),
        (0, range(0, 4, 2), 1),
        (0, range(1), 0),
        (0, range(1), 257),
    ],
)
def test_numbers_that_do_not_fit_are_refused(stream: int, blocks: range, vectors: int) -> None:
    with pytest.raises(InvalidRecord):
        vector_ids(stream, blocks, vectors)


def test_the_best_vector_stands_for_its_block() -> None:
    ids = np.array([block << 8 | ordinal for block, ordinal in [(5, 1), (3, 0), (5, 0), (9, 2), (3, 1)]])

    blocks, scores = best_of_blocks(ids, np.array([9, 8, 7, 6, 5], np.float32), 2)

    assert split_ids(blocks)[1].tolist() == [5, 3]
    assert scores.tolist() == [9, 8]
