from __future__ import annotations

from pathlib import Path

import pytest

from cacheflow_ray.models.word_llava import Sizes, build_word_llava, save_checkpoint
from cacheflow_ray.world import vocabulary


@pytest.fixture(scope="package")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the world that was never trained: every evaluation runs on it, in seconds."""
    folder = tmp_path_factory.mktemp("words")
    save_checkpoint(build_word_llava(vocabulary(), Sizes(layers=2), seed=0), folder)
    return folder
