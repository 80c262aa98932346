"""The model an evaluation runs on."""

from __future__ import annotations

from cacheflow_ray.config import ModelOptions
from cacheflow_ray.models import VideoModel, load_model

__all__ = ["VideoModel", "load"]


def load(name: str, options: ModelOptions) -> VideoModel:
    """Raises as `models.load_model`."""
    return load_model(name, options)
