"""Who does the work of `cacheflow index`, and where."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cacheflow_ray.cli.options import ModelChoice, Place
from cacheflow_ray.cli.shape import RAY_ADDRESS, on_cluster

if TYPE_CHECKING:
    from cacheflow_ray.actors.topology import ClusterOptions
    from cacheflow_ray.config import IndexOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Who does the work, and where."""

    indexers: Annotated[
        int | None,
        on_cluster("--indexers", "N", "Processes, each with a model. Default: 2 on this machine's processors, else 1."),
    ] = None
    files_at_once: Annotated[int, on_cluster("--files-at-once", "N", "Of each, encoded together.")] = 8
    gpus: Annotated[float, on_cluster("--gpus-per-indexer", "G", "0.5: two share one.")] = 0.0
    cpus: Annotated[float, on_cluster("--cpus-per-indexer", "C", "That its node has to spare.")] = 1.0
    role_label: Annotated[
        str | None,
        on_cluster("--role-label", "NAME", "Indexers live on nodes whose label NAME is indexer. Default: anywhere."),
    ] = None
    retries: Annotated[int, on_cluster("--retries", "N", "Of a file, for what may pass.")] = 3
    stores: Annotated[int, on_cluster("--stores", "N", "Data folders; as many as the service has.")] = 1
    ray_address: Annotated[str | None, on_cluster("--ray-address", "ADDR", RAY_ADDRESS)] = None
    namespace: Annotated[
        str, on_cluster("--namespace", "NAME", "In Ray; the stores of a service in the same are used.")
    ] = "cacheflow"

    @property
    def is_local(self) -> bool:
        """Whether anything was said that a service has its own ways of."""
        return self != Crew(indexers=self.indexers, files_at_once=self.files_at_once)

    @property
    def size(self) -> int:
        """How many indexers."""
        from cacheflow_ray.config import INDEXERS_ON_CPUS

        if self.indexers is not None:
            return self.indexers
        return 1 if self.ray_address or self.gpus else min(INDEXERS_ON_CPUS, os.cpu_count() or 1)

    def options(self) -> IndexOptions:
        """Raises InvalidConfig."""
        from cacheflow_ray.config import IndexOptions

        return IndexOptions(
            indexers=self.size,
            files_at_once=self.files_at_once,
            gpus_per_indexer=self.gpus,
            cpus_per_indexer=self.cpus,
            role_label=self.role_label,
            retries=self.retries,
        )

    def cluster(self, place: Place, model: ModelChoice) -> ClusterOptions:
        """Raises InvalidConfig."""
        from cacheflow_ray.actors.topology import ClusterOptions
        from cacheflow_ray.config import Defaults, EncoderOptions, TopologyOptions

        defaults = Defaults.from_environment()
        cores = (os.cpu_count() or 1) / self.size if self.ray_address is None else self.cpus
        return ClusterOptions(
            data=place.folder(defaults),
            model=model.name(defaults),
            model_options=model.options(defaults),
            encoder=EncoderOptions(torch_threads=max(1, int(cores))),
            topology=TopologyOptions(stores=self.stores, namespace=self.namespace),
            ray_address=self.ray_address,
        )
