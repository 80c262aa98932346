"""Options that say what a service is made of, and where its actors run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cacheflow_ray.cli.options import ModelChoice, Place
from cacheflow_ray.errors import UsageError

if TYPE_CHECKING:
    from cacheflow_ray.actors.topology import ClusterOptions


RAY_ADDRESS = "Run on this Ray cluster ('auto': the one around). Default: a Ray of this machine's own."


def on_cluster(name: str, metavar: str | None, text: str) -> Any:
    """An option of what runs on a cluster."""
    return typer.Option(name, metavar=metavar, rich_help_panel="Cluster", help=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the service is made of, and where it runs."""

    encoders: Annotated[int, on_cluster("--encoders", "N", "Encoders at the start.")] = 1
    answerers: Annotated[int, on_cluster("--answerers", "N", "Answerers at the start.")] = 1
    stores: Annotated[int, on_cluster("--stores", "N", "Data folders; fixed once there is data.")] = 1
    gpus_per_encoder: Annotated[float, on_cluster("--gpus-per-encoder", "G", "0.5: two share one. Default: 0.")] = 0.0
    gpus_per_answerer: Annotated[float, on_cluster("--gpus-per-answerer", "G", "As for encoders.")] = 0.0
    cpus_per_encoder: Annotated[
        float, on_cluster("--cpus-per-encoder", "C", "Cores a node must have free. Default: 0, it may be any node.")
    ] = 0.0
    cpus_per_answerer: Annotated[float, on_cluster("--cpus-per-answerer", "C", "As for encoders.")] = 0.0
    threads: Annotated[
        int | None,
        on_cluster(
            "--threads", "N", "Each encoder and answerer computes in so many. Default: a share of this machine."
        ),
    ] = None
    store_label: Annotated[
        str | None,
        on_cluster("--store-label", "NAME", "Store I lives on the node whose label NAME is I. Default: all live here."),
    ] = None
    role_label: Annotated[
        str | None,
        on_cluster(
            "--role-label",
            "NAME",
            "Encoders, answerers and what serves clients live on nodes whose label NAME is encoder, answerer, gateway.",
        ),
    ] = None
    durability: Annotated[
        str, on_cluster("--durability", "D", "What a crash may cost: power_safe, process_safe or relaxed.")
    ] = "power_safe"
    source_root: Annotated[Path | None, on_cluster("--source-root", "DIR", "Clients may have files below it read.")] = (
        None
    )
    ray_address: Annotated[str | None, on_cluster("--ray-address", "ADDR", RAY_ADDRESS)] = None
    namespace: Annotated[str, on_cluster("--namespace", "NAME", "Of its actors in Ray.")] = "cacheflow"
    detached: Annotated[bool, on_cluster("--detached", None, "Leave it running on the Ray cluster, and return.")] = (
        False
    )

    def options(self, place: Place, model: ModelChoice) -> ClusterOptions:
        """Raises UsageError, InvalidConfig."""
        from cacheflow_ray.actors.topology import ClusterOptions
        from cacheflow_ray.config import Defaults, EncoderOptions, StoreOptions, TopologyOptions

        if self.detached and self.ray_address is None:
            raise UsageError("--detached leaves it running on a Ray cluster: name one with --ray-address")
        defaults = Defaults.from_environment()
        placed = {name: getattr(self, name) for name in TopologyOptions.model_fields}
        return ClusterOptions(
            data=place.folder(defaults),
            model=model.name(defaults),
            model_options=model.options(defaults),
            store=StoreOptions.model_validate({"durability": self.durability}),
            encoder=EncoderOptions(torch_threads=self.threads),
            topology=TopologyOptions.model_validate(placed),
            ray_address=self.ray_address,
            source_root=self.source_root,
        )
