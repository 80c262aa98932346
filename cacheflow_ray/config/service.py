"""Sections of the service: its actors, and the gateway in front of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from cacheflow_ray.config.section import Section

Port = Annotated[int, Field(ge=0, le=65535, description="0 to 65535")]
Count = Annotated[int, Field(ge=1, description="1 or more")]


class EncoderOptions(Section):
    """How one encoder shares its time among the streams pushed to it.

    Args:
        max_streams: open at once.
        queue_frames: of one stream, waiting or not durable yet: the credits of whoever pushes it.
        queue_bytes: the same in bytes of what is pushed.
        step_frames: most frames of all streams in one step.
        commit_interval_s: longest that what is encoded waits for company on its way to the store.
        idle_s: a stream to which nothing is pushed for so long is let go; whoever pushes it opens it anew.
        decode_threads: that turn encoded pictures into frames.
        writers: commits under way at once, of streams of different stores.
        torch_threads: that compute; None: an equal share of the cores for every encoder and answerer.

    Raises:
        InvalidConfig: an unknown key, or a value out of range.
    """

    max_streams: Annotated[int, Field(ge=1, le=65536, description="1 to 65536")] = 256
    queue_frames: Annotated[int, Field(ge=1, le=4096, description="1 to 4096")] = 32
    queue_bytes: Annotated[int, Field(ge=1 << 20, description="1048576 or more")] = 64 << 20
    step_frames: Annotated[int, Field(ge=1, le=65536, description="1 to 65536")] = 128
    commit_interval_s: Annotated[float, Field(gt=0, le=60, description="above 0 and up to 60")] = 0.5
    idle_s: Annotated[float, Field(gt=0, description="above 0")] = 600.0
    decode_threads: Annotated[int, Field(ge=1, le=256, description="1 to 256")] = 2
    writers: Annotated[int, Field(ge=1, le=256, description="1 to 256")] = 4
    torch_threads: Annotated[int | None, Field(ge=1, le=1024, description="1 to 1024, or None")] = None


class TopologyOptions(Section):
    """How many actors of each kind there are, and what they need of their nodes.

    Args:
        encoders, answerers: can be changed later.
        stores: data folders, each with one writer; fixed when the first is made.
        gpus_per_encoder, gpus_per_answerer: may be fractions, so that several share one.
        cpus_per_encoder, cpus_per_answerer: that a node must have free; an autoscaler adds nodes for them.
        store_label: name of a node label: store i lives on the node whose label of that name is i. None: all live on
            the node where the cluster was started.
        role_label: name of a node label: encoders, answerers and the gateway (with the director) live on nodes whose
            label of that name is encoder, answerer or gateway. None: anywhere.
        namespace: of the actors' names in the Ray cluster.

    Raises:
        InvalidConfig: an unknown key, or a value out of range.
    """

    encoders: Annotated[int, Field(ge=1, le=1024, description="1 to 1024")] = 1
    answerers: Annotated[int, Field(ge=1, le=1024, description="1 to 1024")] = 1
    stores: Annotated[int, Field(ge=1, le=1024, description="1 to 1024")] = 1
    gpus_per_encoder: Annotated[float, Field(ge=0, le=64, description="0 to 64")] = 0.0
    gpus_per_answerer: Annotated[float, Field(ge=0, le=64, description="0 to 64")] = 0.0
    cpus_per_encoder: Annotated[float, Field(ge=0, le=1024, description="0 to 1024")] = 0.0
    cpus_per_answerer: Annotated[float, Field(ge=0, le=1024, description="0 to 1024")] = 0.0
    store_label: Annotated[str | None, Field(min_length=1, description="a label's name, or None")] = None
    role_label: Annotated[str | None, Field(min_length=1, description="a label's name, or None")] = None
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="letters, digits, '_' and '-'")] = (
        "cacheflow"
    )


#: Indexers of one machine without a GPU, where nobody says how many: while one waits for its decoders or for its other
#: cores, the other computes.
INDEXERS_ON_CPUS = 2


class IndexOptions(Section):
    """How a library of files is indexed.

    Args:
        indexers: processes, each with a model; files_at_once: in each of them, encoded together.
        gpus_per_indexer, cpus_per_indexer: of the cluster's; may be fractions.
        role_label: name of a node label: indexers live on nodes whose label of that name is indexer. None: anywhere.
        retries: of a file, when it failed for something that may pass; retry_wait_s: before the first, then twice that.

    Raises:
        InvalidConfig: an unknown key, or a value out of range.
    """

    indexers: Annotated[int, Field(ge=1, le=1024, description="1 to 1024")] = 1
    files_at_once: Annotated[int, Field(ge=1, le=256, description="1 to 256")] = 8
    gpus_per_indexer: Annotated[float, Field(ge=0, le=64, description="0 to 64")] = 0.0
    cpus_per_indexer: Annotated[float, Field(ge=0, le=1024, description="0 to 1024")] = 1.0
    role_label: Annotated[str | None, Field(min_length=1, description="a label's name, or None")] = None
    retries: Annotated[int, Field(ge=0, le=100, description="0 to 100")] = 3
    retry_wait_s: Annotated[float, Field(ge=0, le=3600, description="0 to 3600")] = 1.0


class TlsOptions(Section):
    """Certificates, as PEM files.

    Args:
        cert, key: the server's chain and private key.
        client_ca: who signed the clients' certificates; given, a client without one is refused (mTLS).

    Raises:
        InvalidConfig: an unknown key, or a value that is no path.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None


class ServiceLimits(Section):
    """How much the service takes. What is more ends its call with RESOURCE_EXHAUSTED, naming the limit.

    Args:
        max_message_bytes: one message of a client.
        max_frame_bytes, max_pixels: one picture, as sent and as decoded (default: 8K video).
        max_streams: of a tenant; None: as many as there is room for.
        max_ingests: streams pushed through one gateway at a time.
        max_questions, max_tenant_questions: asked or searched at a time through one gateway, in all and by a tenant.
        max_streams_per_question: one question or search looks into.
        max_index_jobs: of a tenant at a time; more than one only where they are of different files.
        max_indexers: processes of one index job, each with a model; max_files_at_once: in each of them.
        max_calls: of any kind at a time.

    Raises:
        InvalidConfig: an unknown key, or a value out of range.
    """

    max_message_bytes: Annotated[int, Field(ge=1 << 16, lt=1 << 31, description="65536 to 2147483647")] = 16 << 20
    max_frame_bytes: Count = 8 << 20
    max_pixels: Count = 7680 * 4320
    max_streams: Annotated[int | None, Field(ge=1, description="1 or more, or None")] = None
    max_ingests: Count = 256
    max_questions: Count = 64
    max_tenant_questions: Count = 16
    max_streams_per_question: Annotated[int, Field(ge=1, le=64, description="1 to 64")] = 16
    max_index_jobs: Count = 1
    max_indexers: Annotated[int, Field(ge=1, le=1024, description="1 to 1024")] = 16
    max_files_at_once: Annotated[int, Field(ge=1, le=256, description="1 to 256")] = 64
    max_calls: Count = 1024


class ServiceOptions(Section):
    """How a gateway serves.

    Args:
        host, port: where it listens; port 0 is any free one.
        metrics_port: for Prometheus, at `metrics_host`; 0 is any free one, None: nowhere.
        health_port: tells of health and nothing else, in the clear: for probes that can do no TLS. As `metrics_port`.
        tls: None: in the clear, for a trusted network only.
        keys: TOML file of tenants and their API keys (`service.keys`); None: whoever connects is trusted.
        limits: what is refused.
        drain_grace_s: calls under way get so long to end when the gateway closes.
        renew_after: so many calls that clients cancelled, or whose deadline passed, end a gateway's process, once it
            has drained; the next serves at the same port. gRPC loses some hundred bytes with each.
        keepalive_s: a connection without traffic is probed so often, and given up when it stays silent as long again.
        log_json: a call's log line is a JSON object.

    Raises:
        InvalidConfig: an unknown key, or a value out of range.
    """

    host: Annotated[str, Field(min_length=1, description="a name or address")] = "127.0.0.1"
    port: Port = 50051
    metrics_host: Annotated[str, Field(min_length=1, description="a name or address")] = "127.0.0.1"
    metrics_port: Annotated[int | None, Field(ge=0, le=65535, description="0 to 65535, or None")] = None
    health_port: Annotated[int | None, Field(ge=0, le=65535, description="0 to 65535, or None")] = None
    tls: TlsOptions | None = None
    keys: Path | None = None
    limits: ServiceLimits = ServiceLimits()
    drain_grace_s: Annotated[float, Field(ge=0, le=3600, description="0 to 3600")] = 30.0
    renew_after: Count = 1_000_000
    keepalive_s: Annotated[float, Field(ge=1, le=3600, description="1 to 3600")] = 30.0
    log_json: bool = False
