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


def _option(name: str, metavar: str | None, text: str) -> Any:
    return typer.Option(name, metavar=metavar, rich_help_panel="Cluster", help=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the service is made of, and where it runs."""

    encoders: Annotated[int, _option("--encoders", "N", "Encoders at the start.")] = 1
    answerers: Annotated[int, _option("--answerers", "N", "Answerers at the start.")] = 1
    stores: Annotated[int, _option("--stores", "N", "Data folders; fixed once there is data.")] = 1
    gpus_per_encoder: Annotated[float, _option("--gpus-per-encoder", "G", "0.5: two share one. Default: 0.")] = 0.0
    gpus_per_answerer: Annotated[float, _option("--gpus-per-answerer", "G", "As for encoders.")] = 0.0
    cpus_per_encoder: Annotated[
        float, _option("--cpus-per-encoder", "C", "Cores a node must have free. Default: 0, it may be any node.")
    ] = 0.0
    cpus_per_answerer: Annotated[float, _option("--cpus-per-answerer", "C", "As for encoders.")] = 0.0
    threads: Annotated[
        int | None,
        _option("--threads", "N", "Each encoder and answerer computes in so many. Default: a share of this machine."),
    ] = None
    store_label: Annotated[
        str | None,
        _option("--store-label", "NAME", "Store I lives on the node whose label NAME is I. Default: all live here."),
    ] = None
    role_label: Annotated[
        str | None,
        _option(
            "--role-label",
            "NAME",
            "Encoders, answerers and what serves clients live on nodes whose label NAME is encoder, answerer, gateway.",
        ),
    ] = None
    durability: Annotated[
        str, _option("--durability", "D", "What a crash may cost: power_safe, process_safe or relaxed.")
    ] = "power_safe"
    source_root: Annotated[Path | None, _option("--source-root", "DIR", "Clients may have files below it read.")] = None
    ray_address: Annotated[
        str | None,
        _option(
            "--ray-address",
            "ADDR",
            "Run on this Ray cluster ('auto': the one around). Default: a Ray of this machine's own.",
        ),
    ] = None
    namespace: Annotated[str, _option("--namespace", "NAME", "Of its actors in Ray.")] = "cacheflow"
    detached: Annotated[bool, _option("--detached", None, "Leave it running on the Ray cluster, and return.")] = False

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
