"""The runs that costs are fitted to, and the other run that they are to predict."""

from __future__ import annotations

from dataclasses import dataclass

#: Source frames a second of the generated videos; one a second is taken.
SOURCE_FPS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingests:
    """One ingest of several streams of a kind.

    Args:
        streams: at once.
        frames: sampled of each.
        height, width: of the pictures.
        tau: the drop threshold.
    """

    streams: int
    frames: int
    height: int
    width: int
    tau: float

    @property
    def megapixels(self) -> float:
        """Of one frame."""
        return self.height * self.width / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question.

    Args:
        blocks: of the stored stream.
        top_k: retrieved.
        max_new_tokens: of the answer.
    """

    blocks: int
    top_k: int
    max_new_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSizes:
    """How much is run.

    Args:
        calibrated: ingests that costs are fitted to.
        asked: questions that costs are fitted to.
        held_out: the ingest that is predicted, `held_out_ask` the question about it (its `blocks` are the ingest's).
        sample_frames: of one stream of the held-out ingest, looked at beforehand to learn its keep rate.
        rounds: all of it in turn; the median counts. questions_a_round: of each kind.
        decoded_frames: of the videos whose decoding is timed; decoded_sizes: their heights and widths.
    """

    calibrated: tuple[Ingests, ...] = (
        Ingests(streams=1, frames=96, height=240, width=320, tau=0.5),
        Ingests(streams=4, frames=48, height=240, width=320, tau=0.9),
        Ingests(streams=2, frames=64, height=360, width=640, tau=0.7),
        Ingests(streams=6, frames=32, height=360, width=640, tau=0.9),
        Ingests(streams=1, frames=64, height=360, width=640, tau=0.9),
    )
    asked: tuple[Asked, ...] = (
        Asked(blocks=100, top_k=2, max_new_tokens=1),
        Asked(blocks=100, top_k=16, max_new_tokens=8),
        Asked(blocks=100, top_k=48, max_new_tokens=8),
        Asked(blocks=4000, top_k=2, max_new_tokens=8),
        Asked(blocks=4000, top_k=48, max_new_tokens=1),
    )
    held_out: Ingests = Ingests(streams=3, frames=120, height=270, width=480, tau=0.8)
    held_out_ask: Asked = Asked(blocks=0, top_k=8, max_new_tokens=8)
    sample_frames: int = 64
    rounds: int = 5
    questions_a_round: int = 10
    decoded_frames: int = 48
    decoded_sizes: tuple[tuple[int, int], ...] = ((360, 640), (720, 1280))
