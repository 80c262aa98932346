"""A stream's settings once the model has filled in what the user left open; immutable, kept in the stream record."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from cacheflow_ray.config import KvCodec, StreamSettings
from cacheflow_ray.core.dropping import DropRule
from cacheflow_ray.core.summary import check_block_size, default_summary, make_summary
from cacheflow_ray.errors import SettingsMismatch
from cacheflow_ray.models import VideoModel
from memory_store.errors import FingerprintMismatch
from memory_store.quantize import NATIVE
from memory_store.records import JsonValue, StreamRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    """Fields as `config.StreamSettings`, every one decided.

    Args:
        model: name the model was loaded by, for messages.
        source_identity: content identity of the file the stream was made of; "" for frames pushed from elsewhere.
        kv_codec: left out of what is stored when it is native, as in streams made before there were others.
    """

    model: str
    fps: float | None
    tau: float
    reference: Literal["previous", "last_kept"]
    adaptive: bool
    block_size: int
    window_blocks: int
    summary: str
    pixel_gate: float | None
    source_identity: str = ""
    kv_codec: KvCodec = "native"

    @classmethod
    def resolve(cls, settings: StreamSettings, model: VideoModel, source_identity: str) -> StreamSpec:
        """Fill in the model's own block size and window, and the summary that suits the blocks.

        Raises:
            InvalidConfig: no such summary, or blocks too small for it.
        """
        block_size = settings.block_size or model.default_block_size
        summary = default_summary(block_size) if settings.summary is None else settings.summary
        # Before a stream is created that could never be used.
        check_block_size(make_summary(summary, model.encoder.head_dim), block_size)
        window = settings.window_blocks
        given = settings.model_dump() | {
            "block_size": block_size,
            "summary": summary,
            "window_blocks": max(1, model.default_window_tokens // block_size) if window is None else window,
        }
        return cls(model=model.name, source_identity=source_identity, **given)

    @classmethod
    def of(cls, record: StreamRecord) -> StreamSpec:
        """As stored."""
        settings = {"kv_codec": NATIVE} | dict(record.settings)
        return cls(**{field.name: settings[field.name] for field in fields(cls)})  # type: ignore[arg-type]

    def as_settings(self) -> dict[str, JsonValue]:
        """As stored."""
        settings = asdict(self)
        if self.kv_codec == NATIVE:
            del settings["kv_codec"]
        return settings

    @property
    def drop_rule(self) -> DropRule:
        """What the dropping reads."""
        return DropRule(tau=self.tau, reference=self.reference, adaptive=self.adaptive)

    def continued_by(self, settings: StreamSettings) -> StreamSettings:
        """What `settings` ask of this stream: those not set in them are as they are here."""
        ours = {name: getattr(self, name) for name in StreamSettings.model_fields}
        return StreamSettings.model_validate(ours | settings.model_dump(exclude_unset=True))

    def check_continues(self, stored: StreamSpec, stream: str) -> None:
        """Refuse to go on with a stream from another source or under other settings.

        Raises:
            SettingsMismatch: naming the source, or every setting that differs and both values.
        """
        if self.source_identity and stored.source_identity and self.source_identity != stored.source_identity:
            raise SettingsMismatch(
                f"stream {stream!r} holds another source: choose another --stream name, or delete the stream first",
                stream=stream,
            )
        ours, theirs = asdict(self), asdict(stored)
        differs = [name for name in ours if name not in ("model", "source_identity") and ours[name] != theirs[name]]
        if differs:
            told = ", ".join(f"{name} is {theirs[name]}, not {ours[name]}" for name in differs)
            raise SettingsMismatch(
                f"stream {stream!r} was made with other settings ({told}): leave them out to go on with it, or choose "
                "another --stream name",
                stream=stream,
                settings=tuple(differs),
            )


def check_fingerprint(record: StreamRecord, model: VideoModel) -> None:
    """Refuse KV that another model made.

    Raises:
        FingerprintMismatch: naming both models.
    """
    if record.fingerprint != model.fingerprint:
        made_by: Any = record.settings.get("model", "another model")
        raise FingerprintMismatch(
            f"stream {record.stream_id!r} was written with model {made_by!r} (fingerprint {record.fingerprint}), and "
            f"{model.name!r} (fingerprint {model.fingerprint}) is loaded: use --model {made_by} with the same weights "
            "and dtype, ingest into another stream, or delete this one first",
            stream_id=record.stream_id,
            stored=record.fingerprint,
            loaded=model.fingerprint,
        )
