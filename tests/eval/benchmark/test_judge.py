"""The judge over real HTTP: what it is asked, what is read, and what becomes of failures."""

from __future__ import annotations

import socket
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheflow_ray.errors import JudgeFailed, UsageError
from cacheflow_ray.eval.benchmark import Judge
from cacheflow_ray.eval.benchmark.judge import read_verdict
from cacheflow_ray.eval.benchmark.scoring import Verdict
from tests.eval.benchmark.judges import judge_server

YES = '{"pred": "yes", "score": 4}'


def judge(
    url: str, waits: list[float] | None = None, *, tries: int = 3, key: str = "", timeout_s: float = 5.0
) -> Judge:  # fmt: skip
    slept = [] if waits is None else waits
    return Judge(
        url=url, model="m", key=key, tries=tries, backoff_s=0.5, timeout_s=timeout_s, sleep=slept.append
    )  # fmt: skip


def test_a_judge_is_asked_about_question_answer_and_prediction() -> None:
    with judge_server([(200, YES)]) as server:
        said = judge(server.url, key="secret").verdict("What is it?", "a boat", "a ship")
    ((path, headers, body),) = server.requests

    assert said == Verdict(correct=True, score=4.0)
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert body["model"] == "m" and body["temperature"] == 0
    asked = body["messages"][-1]["content"]
    assert all(words in asked for words in ("What is it?", "a boat", "a ship", "0 to 5"))


def test_a_whole_address_is_taken_as_it_is_and_no_key_sends_none() -> None:
    with judge_server([(200, YES)]) as server:
        judge(f"{server.url}/chat/completions/").verdict("q", "w", "a")
    ((path, headers, _),) = server.requests
    assert path == "/v1/chat/completions" and "Authorization" not in headers


@pytest.mark.parametrize("passing", [(500, "oops"), (503, ""), (429, "slow down"), (200, "I cannot say"), (200, "{}")])
def test_what_passes_is_tried_again(passing: tuple[int, str]) -> None:
    waits: list[float] = []
    with judge_server([passing, passing, (200, YES)]) as server:
        said = judge(server.url, waits).verdict("q", "w", "a")
    assert said == Verdict(correct=True, score=4.0) and len(server.requests) == 3 and waits == [0.5, 1.0]


def test_a_server_that_says_when_to_come_back_is_heard() -> None:
    waits: list[float] = []
    with judge_server([(429, ""), (200, YES)], retry_after="7") as server:
        judge(server.url, waits).verdict("q", "w", "a")
    assert waits == [7.0]


def test_a_server_that_keeps_failing_is_given_up() -> None:
    with judge_server([(500, "oops")]) as server, pytest.raises(JudgeFailed, match=r"failed 3 times \(HTTP 500\)"):
        judge(server.url).verdict("q", "w", "a")
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_is_told_at_once(status: int) -> None:
    with judge_server([(status, "bad key")]) as server, pytest.raises(JudgeFailed, match=f"HTTP {status}: bad key"):
        judge(server.url, key="secret").verdict("q", "w", "a")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "words", ["not JSON", "[]", '{"choices": []}', '{"choices": [{"message": {"content": null}}]}']
)
def test_replies_that_cannot_be_read_leave_no_verdict(words: str) -> None:
    with judge_server([(200, words)], raw=True) as server:
        assert judge(server.url).verdict("q", "w", "a") is None
    assert len(server.requests) == 3


def test_nobody_at_the_address_is_a_failure() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(JudgeFailed, match="refused"):
        judge(f"http://127.0.0.1:{port}/v1", tries=2).verdict("q", "w", "a")


def test_a_judge_that_does_not_answer_in_time_is_a_failure() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = perf_counter()
        with pytest.raises(JudgeFailed, match="timed out"):
            judge(address, tries=2, timeout_s=0.1).verdict("q", "w", "a")
        assert perf_counter() - started < 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{'pred': 'no', 'score': 1.5}", Verdict(correct=False, score=1.5)),
        ('```json\n{"pred": "Yes", "score": 5}\n```', Verdict(correct=True, score=5.0)),
        ('{"pred": "yes"}', None), ('{"pred": "perhaps", "score": 3}', None), ('{"pred": "yes", "score": 6}', None),
        ('{"pred": "yes", "score": "4"}', None), ('{"pred": true, "score": 4}', None), ("yes, 4", None), ("", None),
        ('{"pred": "yes", "score": true}', None),
        ('{oops} {"pred": "no", "score": 0}', Verdict(correct=False, score=0)),
    ],
)  # fmt: skip
def test_a_verdict_is_read_or_not_at_all(text: str, said: Verdict | None) -> None:
    assert read_verdict(text) == said


@given(before=st.text(max_size=30), after=st.text(max_size=30))
def test_words_around_a_verdict_do_not_matter(before: str, after: str) -> None:
    before, after = before.replace("{", "").replace("}", ""), after.replace("{", "").replace("}", "")
    assert read_verdict(f"{before}{YES}{after}") == Verdict(correct=True, score=4.0)


@given(st.text(max_size=80))
def test_no_reply_breaks_the_reading(text: str) -> None:
    assert read_verdict(text) is None or read_verdict(text).score is not None  # type: ignore[union-attr]


def test_an_address_and_a_model_are_needed_and_the_key_is_not_shown() -> None:
    for url in ("localhost:8000", "file:///etc/passwd", "ftp://x/y"):
        with pytest.raises(UsageError, match="no address"):
            Judge(url=url, model="m")
    with pytest.raises(UsageError, match="--judge-model"):
        Judge(url="http://x", model="")
    assert "secret" not in repr(Judge(url="http://x", model="m", key="secret"))
