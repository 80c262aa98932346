"""The configuration: small frozen sections, each handed to the one component that reads it.

An unknown key or a bad value raises `InvalidConfig`, naming the key and what is allowed, when a section is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.types import TimeRange

#: 'bundled:<name>' is in the package, 'random:<preset>' the named architecture with random weights; anything else is a
#: name or path of weights.
DEFAULT_MODEL = "bundled:world"

DEFAULT_DATA = Path("cacheflow-data")

#: What a checkpoint recommends, beside its weights.
RECOMMENDED = "cacheflow.json"

#: Candidates each ranking brings to the merge, as a multiple of `top_k` (lists cut at K make the consensus a no-op).
CANDIDATES_PER_BLOCK = 4

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "eager"]
BlockSize = Annotated[int | None, Field(ge=1, le=65536, description="1 to 65536, or None")]
WindowBlocks = Annotated[int | None, Field(ge=0, le=65536, description="0 to 65536, or None")]
Reference = Literal["previous", "last_kept"]
KvCodec = Literal["native", "fp8", "int8"]
Port = Annotated[int, Field(ge=0, le=65535, description="0 to 65535")]
Count = Annotated[int, Field(ge=1, description="1 or more")]
MergeRule = Literal["consensus", "rrf", "interleave", "last", "first"]


class Section(BaseModel):
    """Base of the sections: immutable, no unknown keys, no silent conversion ("3" is not 3)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _explained(cls, data: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            return handler(data)
        except ValidationError as error:
            raise _explain(error, cls) from None


class StreamSettings(Section):
    """How a stream is sampled, thinned, packed and summarised; fixed when the stream is created.

    Args:
        fps: frames taken per second of video; None takes every frame.
        tau: a patch is kept when its cosine with the reference patch is below this (CacheFlow §3.1). -1 keeps one patch
            per frame, anything above 1 keeps all.
        reference: what a patch is compared with: the previous frame's patch or the last kept one at that place.
        adaptive: choose tau per frame from the histogram of its similarities, near `tau`.
        block_size: B, tokens per block; None takes the model's own (patches of one frame).
        window_blocks: W, blocks before its own that a token attends to; None takes the model's own.
        summary: key summary of a block, a name of `core.summary.SUMMARIES`; None takes the centroids that suit the
            block size (`core.summary.default_summary`).
        pixel_gate: a frame in which no part moved by this much (difference of mean colours, 0..255) since the last one
            let through never reaches the vision tower; None encodes every sampled frame.
        kv_codec: how KV is kept on disk: bit for bit, or in a byte a number, about half the size of 16-bit KV. With
            the latter a stream that is resumed goes on from its window as kept, no longer bit-identical to one that
            was never interrupted.

    Raises:
        InvalidConfig: an unknown key, or a value out of range.
    """

    fps: Annotated[float | None, Field(gt=0, le=1000, description="above 0 and up to 1000, or None")] = 1.0
    tau: Annotated[float, Field(ge=-1, le=2, description="-1 to 2")] = 0.5
    reference: Reference = "previous"
    adaptive: bool = False
    block_size: BlockSize = None
    window_blocks: WindowBlocks = None
    summary: Annotated[str | None, Field(min_length=1, description="the name of a summary, or None")] = None
    pixel_gate: Annotated[float | None, Field(ge=0, le=255, description="0 to 255, or None")] = None
    kv_codec: KvCodec = "native"


class StoreOptions(Section):
    """How a data folder is opened for writing.

    Args:
        shards: LMDB environments of a new folder, each with its own writer; None: one, or as many as there are.
        durability: what a crash can cost (`memory_store.Durability`).
        hot_bytes: RAM for blocks read lately, which need not be verified again.

    Raises:
        InvalidConfig: an unknown key, or a value out of range.
    """

    shards: Annotated[int | None, Field(ge=1, le=1024, description="1 to 1024, or None")] = None
    durability: Literal["power_safe", "process_safe", "relaxed"] = "power_safe"
    hot_bytes: Annotated[int, Field(ge=0, description="0 or more")] = 0


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
        store_label: name of a node label: store i lives on the node whose label of that name is i. None: all live on
            the node where the cluster was started.
        namespace: of the actors' names in the Ray cluster.

    Raises:
        InvalidConfig: an unknown key, or a value out of range.
    """

    encoders: Annotated[int, Field(ge=1, le=1024, description="1 to 1024")] = 1
    answerers: Annotated[int, Field(ge=1, le=1024, description="1 to 1024")] = 1
    stores: Annotated[int, Field(ge=1, le=1024, description="1 to 1024")] = 1
    gpus_per_encoder: Annotated[float, Field(ge=0, le=64, description="0 to 64")] = 0.0
    gpus_per_answerer: Annotated[float, Field(ge=0, le=64, description="0 to 64")] = 0.0
    store_label: Annotated[str | None, Field(min_length=1, description="a label's name, or None")] = None
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="letters, digits, '_' and '-'")] = (
        "cacheflow"
    )


class AskOptions(Section):
    """How one question is answered.

    Args:
        top_k: K, blocks retrieved beside the window; 0 answers from the window alone. More is not better: blocks
            beyond need distract the reader.
        candidates: M >= K, blocks each layer's ranking brings to the merge; None means 4 * K.
        ranking: how a layer ranks blocks: by mean cosine over its heads, or by how many heads list a block.
        merge: how the first and last layer's rankings become one.
        stop_ratio: leave out blocks that score below this share of their layer's best; 0 keeps K whatever they score.
        window_blocks: W', most recent blocks attended to; None takes the stream's W.
        time_range: look only here; a range that ends before the present leaves out window and tail.
        max_new_tokens: the answer stops here at the latest.
        session_id: continue this conversation; None starts a new one.

    Raises:
        InvalidConfig: an unknown key, a value out of range, or fewer candidates than blocks.
    """

    top_k: Annotated[int, Field(ge=0, le=4096, description="0 to 4096")] = 8
    candidates: Annotated[int | None, Field(ge=1, le=65536, description="top_k to 65536, or None")] = None
    ranking: Literal["mean", "votes"] = "mean"
    merge: MergeRule = "interleave"
    stop_ratio: Annotated[float, Field(ge=0, le=1, description="0 to 1")] = 0.0
    window_blocks: WindowBlocks = None
    time_range: Annotated[TimeRange | None, Field(description="a TimeRange, or None")] = None
    max_new_tokens: Annotated[int, Field(ge=1, le=8192, description="1 to 8192")] = 64
    session_id: Annotated[
        str | None,
        Field(pattern=r"^[A-Za-z0-9._-]{1,128}$", description="1 to 128 letters, digits, '.', '_' or '-', or None"),
    ] = None

    @model_validator(mode="after")
    def _enough_candidates(self) -> AskOptions:
        if self.candidates is not None and self.candidates < self.top_k:
            raise InvalidConfig(
                f"candidates: {self.candidates} is fewer than top_k = {self.top_k}; allowed: top_k or more, or None",
                key="candidates",
            )
        return self

    @property
    def num_candidates(self) -> int:
        """M: `candidates`, or 4 * K."""
        return self.candidates if self.candidates is not None else CANDIDATES_PER_BLOCK * self.top_k


class Recommended(Section):
    """What a checkpoint was made for, the file RECOMMENDED beside its weights. Holds where the user sets nothing else.

    Raises:
        InvalidConfig: an unknown key or a bad value.
    """

    stream: StreamSettings = StreamSettings()
    ask: AskOptions = AskOptions()

    def stream_settings(self, given: StreamSettings | None) -> StreamSettings:
        """`given`, what is not set in it as recommended."""
        return StreamSettings.model_validate(_set_in(self.stream) | _set_in(given))

    def ask_options(self, given: AskOptions | None) -> AskOptions:
        """`given`, what is not set in it as recommended."""
        return AskOptions.model_validate(_set_in(self.ask) | _set_in(given))


def _set_in(section: Section | None) -> dict[str, Any]:
    return {} if section is None else {name: getattr(section, name) for name in section.model_fields_set}


class ModelOptions(Section):
    """Where and how a model runs.

    Args:
        device: 'auto' is the first CUDA device there is, else the CPU. (Apple's has no float64, which angles need.)
        dtype: 'auto' is bfloat16 on a CUDA device and float32 on the CPU.
        attention: the kernel family behind attention.

    Raises:
        InvalidConfig: an unknown key or value.
    """

    device: Device = "auto"
    dtype: Dtype = "auto"
    attention: Attention = "sdpa"


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
    max_calls: Count = 1024


class ServiceOptions(Section):
    """How a gateway serves.

    Args:
        host, port: where it listens; port 0 is any free one.
        metrics_port: for Prometheus, at `metrics_host`; 0 is any free one, None: nowhere.
        tls: None: in the clear, for a trusted network only.
        keys: TOML file of tenants and their API keys (`service.keys`); None: whoever connects is trusted.
        limits: what is refused.
        drain_grace_s: calls under way get so long to end when the gateway closes.
        keepalive_s: a connection without traffic is probed so often, and given up when it stays silent as long again.
        log_json: a call's log line is a JSON object.

    Raises:
        InvalidConfig: an unknown key, or a value out of range.
    """

    host: Annotated[str, Field(min_length=1, description="a name or address")] = "127.0.0.1"
    port: Port = 50051
    metrics_host: Annotated[str, Field(min_length=1, description="a name or address")] = "127.0.0.1"
    metrics_port: Annotated[int | None, Field(ge=0, le=65535, description="0 to 65535, or None")] = None
    tls: TlsOptions | None = None
    keys: Path | None = None
    limits: ServiceLimits = ServiceLimits()
    drain_grace_s: Annotated[float, Field(ge=0, le=3600, description="0 to 3600")] = 30.0
    keepalive_s: Annotated[float, Field(ge=1, le=3600, description="1 to 3600")] = 30.0
    log_json: bool = False


class Defaults(BaseSettings):
    """What the command line uses where an option is not given, from the environment: CACHEFLOW_DATA and so on.

    Other variables of that prefix are left alone: container platforms inject their own (CACHEFLOW_RAY_PORT).

    Args:
        data: folder of the store.
        model: 'bundled:<name>', 'random:<preset>', a name on the Hugging Face hub, or a local folder.
        device, dtype, attention: as in `ModelOptions`.
        server: HOST:PORT of a service, used instead of `data`; None: there is none.
        api_key: for that service.
    """

    model_config = SettingsConfigDict(frozen=True, env_prefix="CACHEFLOW_", extra="ignore", env_ignore_empty=True)

    data: Path = DEFAULT_DATA
    model: str = DEFAULT_MODEL
    device: Device = "auto"
    dtype: Dtype = "auto"
    attention: Attention = "sdpa"
    server: str | None = None
    api_key: SecretStr | None = None

    @classmethod
    def from_environment(cls) -> Defaults:
        """Raises InvalidConfig naming the variable and what is allowed."""
        try:
            return cls()
        except ValidationError as error:
            raise _explain(error, cls, prefix=cls.model_config["env_prefix"]) from None


def _explain(error: ValidationError, section: type[BaseModel], prefix: str = "") -> InvalidConfig:
    """The first thing wrong, as one line: key, value, what is allowed."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else section.__name__
    key = (prefix + name).upper() if prefix else name
    if first["type"] == "extra_forbidden":
        known = ", ".join(section.model_fields)
        return InvalidConfig(f"{key}: no such key in {section.__name__}; known: {known}", key=key)
    field = section.model_fields.get(name)
    allowed = field.description if field and field.description else first["msg"].removeprefix("Input should be ")
    return InvalidConfig(f"{key}: {first['input']!r} is not allowed; allowed: {allowed}", key=key)
