"""What `cacheflow top` shows: one look at a service, with the rates since the look before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from cacheflow_ray.cli.output import plural, size

if TYPE_CHECKING:
    from cacheflow_ray.actors.api import ActorStatus, ClusterStatus, LiveStream

#: Headings (heading -> side) and rows.
Rows: TypeAlias = tuple[Mapping[str, str], Sequence[tuple[str, ...]]]

#: Role -> which of its metrics are shown, and what is counted; of '.../s' the growth.
_SHOWN: Mapping[str, Sequence[tuple[str, str]]] = {
    "encoder": (
        ("cacheflow_encoder_open_streams", "stream"),
        ("cacheflow_encoder_queued_frames", "waiting frame"),
        ("cacheflow_encoder_frames_total", "frames/s"),
    ),
    "answerer": (
        ("cacheflow_answerer_under_way", "question"),
        ("cacheflow_answerer_answers_total", "answers/s"),
        ("cacheflow_answerer_generated_tokens_total", "tokens/s"),
    ),
    "store": (
        ("cacheflow_store_streams", "stream"),
        ("cacheflow_store_blocks", "block"),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLook:
    """A stream being ingested. `frames_per_s`: None at the first look."""

    stream: str
    encoder: str
    frames: int
    frames_per_s: float | None
    tokens_seen: int
    tokens_kept: int
    blocks: int
    queued: int
    shed: int

    @property
    def keep_rate(self) -> float:
        """Tokens kept / tokens seen, 0..1."""
        return self.tokens_kept / self.tokens_seen if self.tokens_seen else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorLook:
    """An actor. `rates`: growth of its counters (metrics named `_total`) per second; nothing at the first look."""

    name: str
    role: str
    alive: bool
    pid: int
    resident_bytes: int
    node: str
    metrics: Mapping[str, float]
    rates: Mapping[str, float] = field(default_factory=dict)

    @property
    def work(self) -> str:
        """'3 streams, 1 waiting frame, 31.2 frames/s'"""
        parts = []
        for name, counted in _SHOWN.get(self.role, ()):
            if not counted.endswith("/s") and name in self.metrics:
                parts.append(plural(round(self.metrics[name]), counted))
            elif name in self.rates:
                parts.append(f"{self.rates[name]:,.1f} {counted}")
        kept = self.metrics.get("cacheflow_store_live_bytes")
        return ", ".join([*parts, *([size(kept)] if kept is not None else [])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What there is to see at one time, in seconds of any clock."""

    at_s: float
    streams: tuple[StreamLook, ...]
    actors: tuple[ActorLook, ...]


def look(status: ClusterStatus, at_s: float, before: Look | None) -> Look:
    """`status` as it is seen after the look `before`."""
    passed_s = at_s - before.at_s if before else 0.0
    frames = {own.stream: own.frames for own in before.streams} if before else {}
    counters = {own.name: own.metrics for own in before.actors} if before else {}
    return Look(
        at_s=at_s,
        streams=tuple(_stream(own, frames.get(own.stream_id), passed_s) for own in status.streams),
        actors=tuple(_actor(own, counters.get(own.name, {}), passed_s) for own in status.actors),
    )


def _stream(live: LiveStream, frames_before: int | None, passed_s: float) -> StreamLook:
    now = live.position
    new = None if frames_before is None or passed_s <= 0 else (now.frames - frames_before) / passed_s
    return StreamLook(
        stream=live.stream_id,
        encoder=live.encoder,
        frames=now.frames,
        frames_per_s=new,
        tokens_seen=now.tokens_seen,
        tokens_kept=now.tokens_kept,
        blocks=now.blocks,
        queued=live.queued,
        shed=now.shed,
    )


def _actor(actor: ActorStatus, before: Mapping[str, float], passed_s: float) -> ActorLook:
    from cacheflow_ray.service.messages import metrics_of

    # `_created` is when Prometheus' client began to count.
    told = metrics_of(actor.exposition)
    metrics = {name: value for name, value in told.items() if not name.endswith("_created")}
    counters = [name for name in metrics if name.endswith("_total") and name in before and passed_s > 0]
    return ActorLook(
        name=actor.name,
        role=actor.role,
        alive=actor.alive,
        pid=actor.pid,
        resident_bytes=actor.resident_bytes,
        node=actor.node,
        metrics=metrics,
        # One that was restarted counts from 0 again.
        rates={name: max(0.0, metrics[name] - before[name]) / passed_s for name in counters},
    )


def summary(seen: Look) -> str:
    """'2 streams · 61.4 frames/s · 18 % of tokens kept · 3 frames waiting · 5 of 5 actors up'"""
    rates = [own.frames_per_s for own in seen.streams if own.frames_per_s is not None]
    tokens_seen, tokens_kept = (
        sum(getattr(own, name) for own in seen.streams) for name in ("tokens_seen", "tokens_kept")
    )
    parts = [
        plural(len(seen.streams), "stream"),
        *([f"{sum(rates):,.1f} frames/s"] if rates else []),
        *([f"{100 * tokens_kept / tokens_seen:.0f} % of tokens kept"] if tokens_seen else []),
        f"{plural(sum(own.queued for own in seen.streams), 'frame')} waiting",
        f"{sum(own.alive for own in seen.actors)} of {plural(len(seen.actors), 'actor')} up",
    ]
    return " · ".join(parts)


def stream_rows(seen: Look) -> Rows:
    headings = {"stream": "left", "encoder": "left", "frames": "right", "frames/s": "right", "kept": "right"}
    rows = [
        (
            own.stream,
            own.encoder,
            f"{own.frames:,}",
            "-" if own.frames_per_s is None else f"{own.frames_per_s:,.1f}",
            f"{100 * own.keep_rate:.1f} %",
            f"{own.blocks:,}",
            f"{own.queued:,}",
            f"{own.shed:,}",
        )
        for own in sorted(seen.streams, key=lambda own: own.stream)
    ]
    return headings | {"blocks": "right", "waiting": "right", "left out": "right"}, rows


def actor_rows(seen: Look) -> Rows:
    rows = [
        (
            own.name,
            own.role,
            "up" if own.alive else "DOWN",
            size(own.resident_bytes) if own.alive else "-",
            own.node[:8] or "-",
            own.work or "-",
        )
        for own in seen.actors
    ]
    return {"actor": "left", "role": "left", "state": "left", "memory": "right", "node": "left", "work": "left"}, rows
