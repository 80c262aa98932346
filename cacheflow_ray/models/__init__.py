"""Vision-language models taken apart: position-free encoding of blocks, and generation from stored KV."""

from cacheflow_ray.models.encoder import Segment
from cacheflow_ray.models.loading import FAMILIES, load_model
from cacheflow_ray.models.model import VideoModel
from cacheflow_ray.models.prompt import Suffix, Turn
from cacheflow_ray.models.window import Window

__all__ = ["FAMILIES", "Segment", "Suffix", "Turn", "VideoModel", "Window", "load_model"]
