from __future__ import annotations

import io

import pytest
from rich.console import Console

from cacheflow_ray.actors.api import ActorStatus, ClusterStatus, LiveStream
from cacheflow_ray.cli.looks import Look, actor_rows, look, stream_rows, summary
from cacheflow_ray.cli.top import _picture
from cacheflow_ray.engine.position import Position


def status(frames: int, counted: float, **streams: int) -> ClusterStatus:
    """One encoder that has encoded `frames` of the stream 'a', and others by name."""
    live = tuple(
        LiveStream(
            stream_id=name,
            encoder="encoder-0",
            position=Position(next_seq=num, frames=num, tokens_seen=10 * num, tokens_kept=num),
            queued=2,
        )
        for name, num in {"a": frames, **streams}.items()
    )
    actors = (
        ActorStatus(
            name="encoder-0", role="encoder", alive=True, resident_bytes=10, node="n" * 40,
            exposition=f"cacheflow_encoder_frames_total {counted}\ncacheflow_encoder_frames_created 1.0\n"
            "cacheflow_encoder_open_streams 1.0\ncacheflow_encoder_stage_seconds_sum{stage=\"encode\"} 3.0\n",
        ),
        ActorStatus(name="store-0", role="store", alive=False),
    )  # fmt: skip
    return ClusterStatus(actors=actors, streams=live)


def test_rates_are_those_since_the_look_before() -> None:
    first = look(status(10, 100.0), 5.0, None)
    second = look(status(40, 220.0, b=7), 8.0, first)

    assert first.streams[0].frames_per_s is None and not first.actors[0].rates
    assert [own.frames_per_s for own in second.streams] == [10.0, None]
    assert second.actors[0].rates == {"cacheflow_encoder_frames_total": 40.0}
    assert second.actors[0].metrics == {"cacheflow_encoder_frames_total": 220.0, "cacheflow_encoder_open_streams": 1.0}
    assert second.actors[0].work == "1 stream, 40.0 frames/s"


def test_an_actor_that_counts_from_0_again_stands_still_and_does_not_run_backwards() -> None:
    second = look(status(0, 3.0), 2.0, look(status(0, 100.0), 1.0, None))
    assert second.actors[0].rates == {"cacheflow_encoder_frames_total": 0.0}


def test_all_is_said_in_one_line() -> None:
    seen = look(status(40, 0.0, b=10), 2.0, look(status(10, 0.0), 1.0, None))
    assert summary(seen) == "2 streams · 30.0 frames/s · 10 % of tokens kept · 4 frames waiting · 1 of 2 actors up"
    assert summary(Look(at_s=0.0, streams=(), actors=())) == "0 streams · 0 frames waiting · 0 of 0 actors up"


@pytest.mark.parametrize("trouble", ["", "no service answers; this is 3 s old"])
def test_the_live_picture_has_every_row(trouble: str) -> None:
    seen = look(status(40, 0.0), 2.0, None)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(_picture(seen, trouble))

    text = console.export_text()
    assert trouble in text and "DOWN" in text
    for _, rows in (stream_rows(seen), actor_rows(seen)):
        assert all(cell in text for row in rows for cell in row)
