"""What dropping costs: keep rate and accuracy over thresholds, references, the adaptive threshold and the pixel gate.

world    questions about streams of the synthetic world: what is kept, and what can still be answered
drift    a thing that creeps through a still room: how far memory and sight come apart
clips    keep rates of real videos
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cacheflow_ray import world
from cacheflow_ray.config import AskOptions, Recommended, StreamSettings
from cacheflow_ray.core.dropping import DropRule, drop, keep_rate, similarity
from cacheflow_ray.engine import VideoMemory
from cacheflow_ray.eval.needle.rows import make_rows
from cacheflow_ray.eval.needle.run import NeedlePlan, run_needle
from cacheflow_ray.models import VideoModel
from cacheflow_ray.world import Difficulty, Event, Look, Script, Thing, frames, make_script
from cacheflow_ray.world.things import LINES

Note = Callable[[str], None]

#: A still room without noise.
STILL = Difficulty(needles=1, density=0.0, look=Look(noise=0.0, drift=0.0, light=0.0, shake=0.0, scene_s=None))

#: From one corner to the other in so many frames: a seventh of a pixel per frame.
_DRIFT_FRAMES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class DropPlan:
    """What is studied.

    Args:
        taus: thresholds.
        frames, questions: of the world's streams, per setting.
        gates: pixel gates tried at the recommended threshold.
        clips: videos; empty leaves them out.
        recommended: what the model recommends; each setting changes only how it drops.
    """

    taus: tuple[float, ...]
    frames: int = 256
    questions: int = 300
    gates: tuple[float, ...] = (2.0, 4.0, 8.0)
    clips: tuple[Path, ...] = ()
    recommended: Recommended

    def settings(self) -> Iterator[StreamSettings]:
        """Every way of dropping."""
        base = self.recommended.stream_settings(None)
        for reference in ("previous", "last_kept"):
            for tau in self.taus:
                yield base.model_copy(update={"tau": tau, "reference": reference, "adaptive": False})
            yield base.model_copy(update={"reference": reference, "adaptive": True})
        for gate in self.gates:
            yield base.model_copy(update={"pixel_gate": gate})


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldRow:
    """Shares 0..1: what is kept, and right answers of `ours` and from the blocks that hold the answer."""

    settings: StreamSettings
    keep_rate: float
    ours: float
    ours_ci: tuple[float, float]
    oracle: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRow:
    """What is kept of a slow drift, and the cosine between what is seen and what was last kept of the same place."""

    settings: StreamSettings
    keep_rate: float
    mean_likeness: float
    least_likeness: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRow:
    """What is kept of one video."""

    settings: StreamSettings
    clip: str
    frames: int
    keep_rate: float


def world_rows(model: VideoModel, plan: DropPlan, note: Note) -> Iterator[WorldRow]:
    """One row per setting, the same questions for all."""
    for settings in plan.settings():
        needle = NeedlePlan(
            frames=(plan.frames,), methods=("ours", "oracle"), questions=plan.questions, settings=settings,
            ask=plan.recommended.ask_options(AskOptions()),
        )  # fmt: skip
        ours, oracle = make_rows(run_needle(model, needle, note=note))
        yield WorldRow(
            settings=settings, keep_rate=1 - ours.drop_rate, ours=ours.accuracy, ours_ci=ours.ci,
            oracle=oracle.accuracy, n=ours.n,
        )  # fmt: skip


def drift_rows(model: VideoModel, plan: DropPlan) -> Iterator[DriftRow]:
    """One row per setting but the gates', which see pixels."""
    script = _creeping()
    features = torch.stack(model.vision.encode([[frame.image] for frame in frames(script)])).cpu()
    for settings in plan.settings():
        if settings.pixel_gate is not None:
            continue
        rule = DropRule(tau=settings.tau, reference=settings.reference, adaptive=settings.adaptive)
        keep = drop(features, None, rule).keep
        likeness = _likeness(features, keep)
        yield DriftRow(
            settings=settings, keep_rate=keep_rate(keep), mean_likeness=float(likeness.mean()),
            least_likeness=float(likeness.min()),
        )  # fmt: skip


def _creeping() -> Script:
    """One thing, all the time, on its way."""
    room = make_script(0, _DRIFT_FRAMES, STILL)
    thing = Thing(colour="red", shape="star", digit=7)
    path = world.Path(start=(LINES[0], LINES[0]), end=(LINES[-1], LINES[-1]))
    event = Event(thing=thing, start=0, stop=_DRIFT_FRAMES, path=path, size=STILL.size[1])
    return replace(room, events=(event,), needles=())


def _likeness(features: Tensor, keep: Tensor) -> Tensor:
    """[F, P]: of every token its cosine with the latest kept one of its place."""
    held, found = features[0], []
    for frame, kept in zip(features, keep, strict=True):
        held = torch.where(kept[:, None], frame, held)
        found.append(similarity(frame, held))
    return torch.stack(found)


def clip_rows(model: VideoModel, plan: DropPlan, note: Note) -> Iterator[ClipRow]:
    """One row per setting and clip."""
    for settings in plan.settings():
        with (
            tempfile.TemporaryDirectory(prefix="cacheflow-drop-") as place,
            VideoMemory.open(place, model=model) as memory,
        ):
            for clip in plan.clips:
                report = memory.ingest(clip, stream=clip.stem, settings=settings)
                yield ClipRow(settings=settings, clip=clip.name, frames=report.frames, keep_rate=report.keep_rate)
        note(f"clips: {describe(settings)}")


def describe(settings: StreamSettings) -> str:
    """'tau 0.5, last_kept, adaptive, gate 4'."""
    parts = [f"tau {settings.tau:g}", settings.reference]
    parts += ["adaptive"] if settings.adaptive else []
    parts += [f"gate {settings.pixel_gate:g}"] if settings.pixel_gate is not None else []
    return ", ".join(parts)


def videos_in(folder: Path) -> Sequence[Path]:
    """Its video files, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (".mp4", ".mkv", ".webm", ".mov", ".avi"))
