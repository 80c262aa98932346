"""The bundled models: real checkpoints that really answer, by this package and without it."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
import transformers as hf

from cacheflow_ray.config import DEFAULT_MODEL, AskOptions, StreamSettings
from cacheflow_ray.core.dropping import KEEP_ALL
from cacheflow_ray.engine import VideoMemory
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.writer import StreamWriter
from cacheflow_ray.errors import ModelLoadError
from cacheflow_ray.media import Frame
from cacheflow_ray.models import Turn, VideoModel, load_model
from cacheflow_ray.models.loading import CHECKPOINTS
from cacheflow_ray.world import Difficulty, Question, frames, make_questions, make_script
from tests.oracles import native_inputs

#: Short streams; held out: training draws its seeds from a million up.
SEEDS = range(300, 312)
NUM_FRAMES = 20


@functools.cache
def bundled(name: str) -> VideoModel:
    return load_model(name)


@functools.cache
def shown(seed: int) -> tuple[list[Frame], tuple[Question, ...]]:
    script = make_script(seed, NUM_FRAMES, Difficulty.level(0.2))
    return list(frames(script)), make_questions(script, per_kind=2)


def remember(memory: VideoMemory, stream: str, seen: Iterable[Frame], settings: StreamSettings | None) -> None:
    writer = StreamWriter(Backend(model=memory.model, store=memory.store), stream, settings=settings)
    writer.push(seen)
    writer.finish()


def test_the_default_is_bundled_and_small() -> None:
    assert DEFAULT_MODEL == "bundled:world"
    files = [path for path in (CHECKPOINTS / "world").iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    assert {"config.json", "model.safetensors", "tokenizer.json", "cacheflow.json", "README.md"} <= {
        path.name for path in files
    }


def test_what_is_not_bundled_is_refused_with_what_is() -> None:
    with pytest.raises(ModelLoadError, match="bundled:world"):
        load_model("bundled:moon")


def test_plain_generate_answers_and_the_memory_answers_alike(tmp_path: Path) -> None:
    """Nothing dropped, a window over all of it: the memory's context is the whole video, so answers must agree."""
    model = bundled("bundled:world")
    plain = hf.LlavaOnevisionForConditionalGeneration.from_pretrained(CHECKPOINTS / "world").eval()
    whole = StreamSettings(fps=1.0, tau=KEEP_ALL, block_size=16, window_blocks=NUM_FRAMES)
    right = asked = alike = 0
    with VideoMemory.open(tmp_path, model=model) as memory:
        for seed in SEEDS:
            seen, questions = shown(seed)
            stream = f"s{seed}"
            remember(memory, stream, seen, whole)
            for question in questions:
                suffix = model.prompt.suffix([Turn(question=question.text)])
                inputs = native_inputs(model, seen, suffix.ids)
                with torch.no_grad():
                    out = plain.generate(**inputs, max_new_tokens=4, do_sample=False)
                text = model.prompt._tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
                options = AskOptions(top_k=1, max_new_tokens=4)
                alike += memory.ask(stream, question.text, options=options).result.text.strip() == text.strip()
                right += text.strip() == question.answer
                asked += 1
    assert alike == asked
    assert asked >= 60
    assert right / asked >= 0.75


def test_it_answers_from_a_thinned_stream_of_five_minutes(tmp_path: Path) -> None:
    """Far better than any guess (24 % on these kinds), with what it recommends."""
    script = make_script(400, 300)
    questions = make_questions(script, per_kind=4)
    with VideoMemory.open(tmp_path, model=bundled("bundled:world")) as memory:
        remember(memory, "s", frames(script), None)
        stream = memory.stream("s")
        right = [memory.ask("s", question.text).result.text.strip() == question.answer for question in questions]
    assert stream.tokens_kept < 0.25 * stream.tokens_seen
    assert sum(right) / len(right) >= 0.6


def test_the_one_trained_on_answers_alone_reads_what_is_put_before_it(tmp_path: Path) -> None:
    """Colours of short streams, where nothing needs to be found."""
    with VideoMemory.open(tmp_path, model=bundled("bundled:world-free")) as memory:
        right = []
        for seed in SEEDS:
            seen, questions = shown(seed)
            remember(memory, f"s{seed}", seen, None)
            for question in questions:
                if question.kind == "color":
                    right.append(memory.ask(f"s{seed}", question.text).result.text.strip() == question.answer)
    assert len(right) >= 5
    assert sum(right) / len(right) >= 0.6
