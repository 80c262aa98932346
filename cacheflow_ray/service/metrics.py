"""Numbers for Prometheus: the gateway's own, and those of every actor with its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from cacheflow_ray.actors.api import ActorStatus, ClusterStatus

#: Seconds; an ingest lasts as long as its camera.
_CALL_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0)
_FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)


class GatewayMetrics:
    """One gateway's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.actors = ActorMetrics()
        registry.register(self.actors)
        self.calls = Counter(
            "cacheflow_calls_total", "Calls that ended, by their status.", ["method", "code"], registry=registry
        )
        self.call_s = Histogram(
            "cacheflow_call_seconds", "How long a call took.", ["method"], buckets=_CALL_S, registry=registry
        )
        self.calls_in_flight = Gauge("cacheflow_calls_in_flight", "Calls under way.", ["method"], registry=registry)
        self.received_frames = Counter("cacheflow_received_frames_total", "Frames clients pushed.", registry=registry)
        self.received_bytes = Counter(
            "cacheflow_received_bytes_total", "Bytes of frames and video files clients pushed.", registry=registry
        )
        self.first_token_s = Histogram(
            "cacheflow_first_token_seconds",
            "From a question's arrival to the first piece of its answer.",
            buckets=_FIRST_TOKEN_S,
            registry=registry,
        )

    def serve(self, host: str, port: int) -> MetricsServer:
        """`/metrics` over HTTP, in a thread of its own. Raises: OSError: the port is taken."""
        return MetricsServer(self.registry, host, port)


class MetricsServer:
    """Attributes: port: where it listens."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Takes up to half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class ActorMetrics(Collector):
    """The actors' own metrics as they were last told, `actor` naming whose they are."""

    def __init__(self) -> None:
        self._actors: tuple[ActorStatus, ...] = ()

    def update(self, status: ClusterStatus) -> None:
        """What is told from now on."""
        self._actors = status.actors

    def collect(self) -> Iterable[Metric]:
        actors = self._actors
        up = GaugeMetricFamily("cacheflow_actor_up", "Whether the actor answered.", labels=["actor", "role"])
        resident = GaugeMetricFamily("cacheflow_actor_resident_bytes", "Memory it holds.", labels=["actor", "role"])
        families: dict[str, Metric] = {}
        for actor in actors:
            up.add_metric([actor.name, actor.role], float(actor.alive))
            resident.add_metric([actor.name, actor.role], float(actor.resident_bytes))
            for family in _parsed(actor.exposition):
                merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                merged.samples.extend(
                    sample._replace(labels={**sample.labels, "actor": actor.name}) for sample in family.samples
                )
        return [up, resident, *families.values()]


def _parsed(exposition: str) -> Iterator[Metric]:
    """Nothing from the first line on that is none: one actor's nonsense hides no other's numbers."""
    try:
        yield from text_string_to_metric_families(exposition)
    except ValueError:
        return
