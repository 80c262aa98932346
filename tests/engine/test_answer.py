"""An answer while it is made, and when it cannot be finished."""

from __future__ import annotations

import pytest

from cacheflow_ray.engine.answerer import Answer, Clock, Prepared
from cacheflow_ray.engine.reports import Usage
from cacheflow_ray.models.generation import Generation, TokenSink
from cacheflow_ray.models.random_weights import byte_tokenizer

NOTHING = Usage(
    context_tokens=0, retrieved_blocks=0, window_blocks=0, tail_tokens=0, question_tokens=0, generated_tokens=0,
    fetched_bytes=0,
)  # fmt: skip


def test_half_an_answer_is_never_taken_for_a_whole_one() -> None:
    tokenizer = byte_tokenizer("<video>")

    def run(sink: TokenSink) -> None:
        sink.put(tokenizer.convert_tokens_to_ids("a"))
        sink.fail(ValueError("out of columns"))

    generation = Generation(tokenizer, run)
    prepared = Prepared(generation=generation, evidence=(), usage=NOTHING, warnings=(), clock=Clock())
    remembered: list[str] = []
    answer = Answer(prepared, remembered.append)

    pieces = []
    with pytest.raises(ValueError, match="out of columns"):
        for piece in answer:
            pieces.append(piece)
    with pytest.raises(ValueError, match="out of columns"):
        _ = answer.result

    assert pieces == ["a"] and not remembered
