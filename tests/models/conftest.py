"""The families at toy size, each built once."""

from __future__ import annotations

import pytest

from cacheflow_ray.models import VideoModel
from tests.oracles import FAMILIES, toy_model


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def model(family: str) -> VideoModel:
    return toy_model(family)
