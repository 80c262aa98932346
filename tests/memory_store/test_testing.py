"""The in-memory double keeps the store's promises."""

from __future__ import annotations

import inspect

import pytest

from memory_store import Store
from memory_store.testing import MemoryStore
from tests.memory_store.conformance import FakeClock, StoreConformance


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def store(self, clock: FakeClock) -> MemoryStore:
        return MemoryStore.open("nowhere", clock=clock)


def test_the_double_has_the_store_s_surface() -> None:
    names = [name for name in vars(Store) if not name.startswith("_")]
    assert len(names) > 10
    for name in names:
        ours, theirs = (inspect.signature(getattr(cls, name)).parameters for cls in (MemoryStore, Store))
        assert list(ours.values()) == list(theirs.values()), name
