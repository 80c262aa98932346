"""Streams of which summaries alone are kept, their source, and questions to them."""

from __future__ import annotations

from pathlib import Path

from cacheflow_ray.config import AskOptions, Reencoding
from cacheflow_ray.engine import IngestJob, VideoMemory
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.reports import AnswerResult
from cacheflow_ray.media import Encoding, write_video
from memory_store import Retention
from tests.oracles import FPS, moving_frames, settings

#: Pictures that come out of the decoder in another order than they are stored in, and several keyframes.
B_FRAMES = Encoding(options={"g": "12", "bf": "3"})


def write_source(folder: Path) -> Path:
    """33 frames; nothing moves in every third of them, nor in a longer stretch."""
    moving = [frame.image for frame in moving_frames(33)]
    images = [moving[number - number % 3 // 2] if not 20 <= number < 26 else moving[20] for number in range(33)]
    path = folder / "source.mp4"
    write_video(path, images, fps=FPS, codec=B_FRAMES)
    return path


def archived(
    memory: VideoMemory, video: Path | str, stream: str = "s", *, retention: Retention | None = None, **changes: object
) -> Backend:
    """A stream of which only the window's KV is left."""
    policy = retention or Retention(summary_only_after_s=0.0)
    chosen = settings(**{"tau": 0.9, **changes})
    memory.ingest_many([IngestJob(source=video, stream=stream, settings=chosen, retention=policy)])
    return Backend(model=memory.model, store=memory.store)


def asked(memory: VideoMemory, stream: str = "s", **reencode: object) -> AnswerResult:
    options = AskOptions(top_k=4, max_new_tokens=4, reencode=Reencoding.model_validate(reencode))
    return memory.ask(stream, "what moves?", options=options).result


def left_out(result: AnswerResult) -> str:
    """Why; nothing was re-encoded."""
    assert result.reencoded is None and result.usage.retrieved_blocks == 0
    assert all("(aged)" in own and "the summary is kept: re-encode needed, but " in own for own in result.warnings)
    return "; ".join(own.partition(", but ")[2] for own in result.warnings)
