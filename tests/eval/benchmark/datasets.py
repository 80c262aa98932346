"""Small data sets in the published formats, with videos of a moving picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from cacheflow_ray.media import write_video
from tests.oracles import FPS, moving_frames

#: Seconds of every video made here.
LENGTH_S = 20.0


def film(path: Path, *, seed: int = 0, seconds: float = LENGTH_S) -> Path:
    """A video of two frames per second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, [frame.image for frame in moving_frames(int(seconds * FPS), seed=seed)], fps=FPS)
    return path


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def by_video(video_path: str, *conversations: dict[str, Any], video_id: str = "v1") -> dict[str, Any]:
    """A record of the ReKV family."""
    return {"video_id": video_id, "video_path": video_path, "duration": LENGTH_S, "conversations": list(conversations)}


def choice(**changes: Any) -> dict[str, Any]:
    """A multiple-choice conversation; `answer` is the text of the right choice."""
    asked = {"question": "What moves?", "choices": ["a cat", "a patch", "nothing"], "answer": "a patch"}
    return asked | {"question_type": "needle", "temporal_windows": [[4.0, 6.5]]} | changes


def open_question(**changes: Any) -> dict[str, Any]:
    """An open conversation; RVS adds the times."""
    return {"question": "What moves?", "answer": "a coloured patch", "question_type": 3} | changes


def ovo_choice(**changes: Any) -> dict[str, Any]:
    """An OVO-Bench record whose `answer` is a paraphrase of options[gt]."""
    record = {"id": 7, "task": "EPM", "video": "Ego4D/clips/x.mp4", "realtime": 8.0, "question": "Where was it?"}
    return record | {"options": ["left", "on the right", "nowhere"], "gt": 1, "answer": "right-hand side"} | changes


def ovo_forward(task: str, *tests: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """An OVO-Bench forward record."""
    return {"id": 9, "task": task, "video": "y.mp4", "ask_time": 2, "test_info": list(tests)} | changes


def streaming(**changes: Any) -> dict[str, Any]:
    """A StreamingBench question."""
    asked = {"task_type": "Object Recognition", "question": "What is it?", "time_stamp": "00:00:06", "answer": "B"}
    options = ["A. A compass.", "B. A map.", "C. A meter.", "D. A radar."]
    return asked | {"options": options, "required_ability": "working memory"} | changes


def proactive(**changes: Any) -> dict[str, Any]:
    """A StreamingBench proactive question."""
    asked = {"task_type": "Proactive Output", "question": 'When it shows 3, output "3".', "time_stamp": "00:00:04"}
    return asked | {"ground_truth_time_stamp": "00:00:08", "ground_truth_output": "3"} | changes


def of_streamingbench(*questions: dict[str, Any], video: str = "./videos/s1.mp4") -> dict[str, Any]:
    return {"time": "[0:00:00 - 0:00:20]", "video_categories": "x", "video_path": video, "questions": list(questions)}


def movie_array(path: Path, seconds: int = 12) -> Path:
    """A film as RVS-Movie comes: one decoded frame per second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.stack([frame.image for frame in moving_frames(seconds)]))
    return path
