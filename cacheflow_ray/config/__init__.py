"""The configuration: small frozen sections, each handed to the one component that reads it.

An unknown key or a bad value raises `InvalidConfig`, naming the key and what is allowed, when a section is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from cacheflow_ray.config.section import Section, explain
from cacheflow_ray.config.service import (
    INDEXERS_ON_CPUS,
    EncoderOptions,
    IndexOptions,
    ServiceLimits,
    ServiceOptions,
    TlsOptions,
    TopologyOptions,
)
from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.types import TimeRange

__all__ = [
    "AskOptions",
    "Attention",
    "BlockSize",
    "CANDIDATES_PER_BLOCK",
    "DEFAULT_DATA",
    "DEFAULT_MODEL",
    "Defaults",
    "Device",
    "Dtype",
    "EncoderOptions",
    "KvCodec",
    "MergeRule",
    "INDEXERS_ON_CPUS",
    "IndexOptions",
    "ModelOptions",
    "RECOMMENDED",
    "Recommended",
    "Reencoding",
    "Reference",
    "Section",
    "ServiceLimits",
    "ServiceOptions",
    "StoreOptions",
    "StreamSettings",
    "TlsOptions",
    "TopologyOptions",
    "WindowBlocks",
]

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
MergeRule = Literal["consensus", "rrf", "interleave", "last", "first"]


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


class Reencoding(Section):
    """What a question may do about blocks whose KV was dropped: encode them again from the stream's source.

    Args:
        allowed: no: they are left out, and the answer says so.
        max_blocks: wanted by one question, the best first; each is encoded after its warm-up.
        max_seconds: that one question may spend on it; what is not ready by then is left out.
        warm_up_blocks: encoded before each wanted one, so that it sees about what it saw; None: 8, or two windows of
            the stream where that is less. KV of theirs that is kept is taken instead.
        source: path or address at which the stream's source is by now; None: where its record says.

    Raises:
        InvalidConfig: an unknown key, or a value out of range.
    """

    allowed: bool = True
    max_blocks: Annotated[int, Field(ge=0, le=4096, description="0 to 4096")] = 8
    max_seconds: Annotated[float, Field(gt=0, le=86400, description="above 0 and up to 86400")] = 30.0
    warm_up_blocks: Annotated[int | None, Field(ge=0, le=65536, description="0 to 65536, or None")] = None
    source: Annotated[str | None, Field(min_length=1, description="a path or address, or None")] = None


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
        reencode: what is done about blocks without KV.

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
    reencode: Reencoding = Reencoding()

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
            raise explain(error, cls, prefix=cls.model_config["env_prefix"]) from None
