"""The frames a client keeps: none lost, none sent beyond the credits, whatever order things happen in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheflow_ray.actors.api import FramePayload
from cacheflow_ray.errors import LimitExceeded, ServiceError, UsageError
from cacheflow_ray.service.client.window import Window


def frame(seq: int, num_bytes: int = 10) -> FramePayload:
    return FramePayload(seq=seq, timestamp_s=seq / 2, data=bytes(num_bytes))


class Server:
    """Takes what is sent; what it has is durable once it is acknowledged, and the rest is gone when it dies."""

    def __init__(self, frames: int, num_bytes: int) -> None:
        self.credits = (frames, num_bytes)
        self.on_way: list[FramePayload] = []
        self.durable: list[int] = []
        self.next_seq = 0

    def receive(self, sent: FramePayload) -> None:
        self.on_way.append(sent)
        assert len(self.on_way) <= self.credits[0]
        assert sum(len(each.data) for each in self.on_way) <= self.credits[1]

    def make_durable(self, num: int) -> tuple[int, int, int]:
        done, self.on_way = self.on_way[:num], self.on_way[num:]
        for each in done:
            if each.seq >= self.next_seq:
                self.durable.append(each.seq)
                self.next_seq = each.seq + 1
        return self.next_seq, len(done), sum(len(each.data) for each in done)


@given(
    seqs=st.lists(st.integers(0, 200), unique=True, max_size=20).map(sorted),
    sizes=st.lists(st.integers(1, 30), min_size=1),
    events=st.lists(st.sampled_from(["send", "send all", "ack", "ack 2", "die", "die with news"])),
    credits=st.tuples(st.integers(1, 6), st.integers(30, 90)),
)
def test_whatever_happens_every_frame_becomes_durable_once_and_in_order(
    seqs: list[int], sizes: list[int], events: list[str], credits: tuple[int, int]
) -> None:
    source = [frame(seq, sizes[at % len(sizes)]) for at, seq in enumerate(seqs)]
    window, server = Window("s"), Server(*credits)

    def connect() -> None:
        server.on_way.clear()
        window.opened(server.next_seq, *server.credits)

    def send() -> None:
        sent = window.take()
        if sent is None and window.all_sent and source:
            window.add(source.pop(0))
            sent = window.take()
        if sent is not None:
            server.receive(sent)
        assert len(window) <= credits[0] + 1

    connect()
    for event in [*events, *["send", "ack 2"] * (2 * len(seqs) + 2)]:
        match event:
            case "send" | "send all":
                for _ in range(1 if event == "send" else len(seqs)):
                    send()
            case "ack" | "ack 2":
                window.acked(*server.make_durable(int(event == "ack 2") + 1))
            case "die with news":
                server.make_durable(1)  # its ack never arrives
                connect()
            case "die":
                connect()

    assert server.durable == seqs and not source and len(window) == 0


def test_the_last_durable_time_is_that_of_the_last_frame_let_go() -> None:
    window = Window("s")
    window.opened(0, 4, 100)
    for seq in range(3):
        window.add(frame(seq))
        window.take()
    window.acked(2, 2, 20)
    assert (window.next_seq, window.last_durable_s, len(window)) == (2, 0.5, 1)


def test_frames_the_stream_has_are_passed_over() -> None:
    window = Window("s")
    window.opened(5, 4, 100)
    window.add(frame(4))
    window.add(frame(5))
    sent = window.take()
    assert sent is not None and sent.seq == 5


def test_a_frame_above_all_credit_is_refused_here_and_not_waited_for() -> None:
    window = Window("s")
    window.opened(0, 4, 100)
    window.add(frame(0, num_bytes=101))
    with pytest.raises(LimitExceeded, match="frame 0 is of 101 bytes") as refused:
        window.take()
    assert refused.value.ids == {"stream": "s", "limit": "credit_bytes", "value": 100}


def test_frames_must_count_upwards() -> None:
    window = Window("s")
    window.add(frame(3))
    with pytest.raises(UsageError, match="frame 3 comes after frame 3"):
        window.add(frame(3))


def test_a_server_that_lost_what_it_had_acknowledged_is_told_apart() -> None:
    window = Window("s")
    window.opened(0, 4, 100)
    window.add(frame(0))
    window.take()
    window.acked(1, 1, 10)
    with pytest.raises(ServiceError, match="has lost frames 0 to 0"):
        window.opened(0, 4, 100)
