"""What every actor is told when it is made; small, and the same for all."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cacheflow_ray.config import EncoderOptions, ModelOptions, StoreOptions, TopologyOptions

DIRECTOR = "director"
GATEWAY = "gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePlace:
    """One store actor: its name, and the folder it keeps, on its own node."""

    name: str
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the cluster is made of.

    Args:
        namespace: of the actors' names.
        model: as `load_model` takes it.
        stores: where streams are kept; a stream's place among them never changes.
        topology: as it was when it was started, and what actors made later need of their nodes.
        patience_s: how long a call to a store waits for it to come back.
        source_root: files below it may be read as sources; None: only addresses.
        max_container_bytes: of a video file pushed in pieces.
    """

    namespace: str
    model: str
    model_options: ModelOptions
    store_options: StoreOptions
    encoder_options: EncoderOptions
    stores: tuple[StorePlace, ...]
    topology: TopologyOptions = field(default_factory=TopologyOptions)
    patience_s: float = 10.0
    source_root: Path | None = None
    max_container_bytes: int = 4 << 30
    max_answers: int = 8
