"""Recombined clips: every question has the one right answer, told by the clip's own tokens."""

from __future__ import annotations

import numpy as np
import pytest

from cacheflow_ray.training.bank import EVENT_DTYPE, StreamTokens
from cacheflow_ray.training.clips import KIND_WEIGHTS, Asked, Clip, make_clip

#: Channels 0..4 of a feature: colour, shape, digit, place and start of the event it shows, so that a clip can be
#: checked against what is left in it; channel 5 tells a stream from another.
CHANNELS = 6


def bank() -> list[StreamTokens]:
    rng = np.random.default_rng(0)
    streams = []
    for number in range(4):
        events, frames, shows, features = [], [], [], []
        for frame in range(120):
            if rng.random() < 0.3:
                event = (*rng.integers(0, (3, 3, 10)), rng.integers(-1, 9), frame, frame + 3)
                events.append(event)
                for _ in range(int(rng.integers(2, 6))):
                    frames.append(frame)
                    shows.append(len(events) - 1)
                    features.append((*event[:5], number))
            frames.append(frame)
            shows.append(-1)
            features.append((-1, -1, -1, -1, -1, number))
        streams.append(
            StreamTokens(
                features=np.array(features, np.float16),
                frame=np.array(frames, np.int32),
                shows=np.stack([np.array(shows, np.int32), np.full(len(shows), -1, np.int32)], axis=1),
                events=np.array(events, EVENT_DTYPE),
                num_frames=120,
            )
        )
    return streams


def shown(clip: Clip) -> dict[int, tuple[int, int, int, int]]:
    """Event -> (colour, shape, digit, place), read off the tokens that are left."""
    found = {}
    for event, feature in zip(clip.shows.tolist(), clip.features, strict=True):
        if event >= 0:
            found[event] = tuple(int(value) for value in feature[:4])
    return found


def check(asked: Asked, things: dict[int, tuple[int, int, int, int]]) -> None:
    from cacheflow_ray.world import COLOURS, DIGITS, PLACES, SHAPES

    names = {event: f"{COLOURS[thing[0]]} {SHAPES[thing[1]]}" for event, thing in things.items()}
    text, answer = asked.turns[-1]
    if asked.kind == "color":
        same = {COLOURS[c] for c, s, d, _ in things.values() if text.endswith(f"{SHAPES[s]} with number {DIGITS[d]}")}
        assert same == {answer}
    elif asked.kind == "shape":
        same = {SHAPES[s] for c, s, d, _ in things.values() if f"{COLOURS[c]} thing with number {DIGITS[d]}" in text}
        assert same == {answer}
    elif asked.kind in ("number", "where"):
        subject = asked.turns[0][0]
        (event,) = [event for event, name in names.items() if subject.endswith(name)]
        assert answer == (DIGITS[things[event][2]] if asked.kind == "number" else PLACES[things[event][3]])
    elif asked.kind == "yesno":
        assert (answer == "yes") == any(f"the {name} appear" in text for name in names.values())
    elif asked.kind == "count":
        assert answer == DIGITS[sum(text.endswith(f"the {name} appear") for name in names.values())]
    else:
        first = min(asked.events)  # numbers follow time
        assert answer == COLOURS[things[first][0]]
        assert all(list(names.values()).count(names[event]) == 1 for event in asked.events)


@pytest.mark.parametrize("num_tokens", [48, 160, 640])
def test_answers_hold_in_what_is_left_of_the_clip(num_tokens: int) -> None:
    streams, kinds = bank(), set()
    for seed in range(25):
        clip = make_clip(streams, np.random.default_rng(seed), num_tokens, 12)
        assert len(clip.features) == len(clip.shows) == num_tokens
        things = shown(clip)
        for asked in clip.asked:
            assert set(asked.events) <= things.keys()
            check(asked, things)
            kinds.add(asked.kind)
    assert kinds == set(KIND_WEIGHTS)


def test_the_same_seed_gives_the_same_clip() -> None:
    one, other = (make_clip(bank(), np.random.default_rng(5), 96, 8) for _ in range(2))
    assert one.asked == other.asked
    assert np.array_equal(one.features, other.features)


def test_blocks_of_a_question_hold_its_tokens() -> None:
    clip = make_clip(bank(), np.random.default_rng(1), 160, 12)
    for asked in clip.asked:
        blocks = clip.blocks_of(asked, 16)
        inside = np.isin(np.arange(160) // 16, list(blocks))
        assert set(asked.events) <= set(clip.shows[inside].tolist())
        assert not np.isin(clip.shows[~inside], asked.events).any()


def test_questions_are_about_what_is_seen() -> None:
    for seed in range(25):
        clip = make_clip(bank(), np.random.default_rng(seed), 96, 8, num_seen=70)
        assert len(clip.shows) == 96
        for asked in clip.asked:
            assert not np.isin(clip.shows[70:], asked.events).any()
