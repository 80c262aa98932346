"""A library of four streams, indexed once per module, and one thread to search it with."""

from __future__ import annotations

from collections.abc import Iterator

import faiss
import pytest

from memory_store.library import LibraryIndex
from tests.memory_store.library.clusters import Library


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


@pytest.fixture(scope="module")
def library() -> Library:
    return Library(num_streams=4, num_blocks=1_000)


@pytest.fixture(scope="module")
def sealed(library: Library) -> LibraryIndex:
    return library.index()
