"""`cacheflow eval benchmark` as a whole: real video, model, files and judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cacheflow_ray.cli.app import run
from tests.eval.benchmark.datasets import by_video, choice, film, open_question, ovo_choice, ovo_forward, write_json
from tests.eval.benchmark.judges import judge_server
from tests.oracles import save_toy

Capture = pytest.CaptureFixture[str]

MODEL = ("--model", "random:tiny-llava-onevision", "--device", "cpu", "--max-new-tokens", "4")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of it about one video of 8 s."""
    place = tmp_path_factory.mktemp("data")
    film(place / "videos" / "v.mp4", seconds=8)
    tasks = (choice(question_type="needle"), choice(question_type="count", answer="nothing", question="How many?"))
    write_json(place / "dev_debug_mc.json", [by_video("videos/v.mp4", *tasks)])
    unknown = [by_video("videos/v.mp4", choice(answer=None), video_id=uid) for uid in ("q-1", "q-2")]
    write_json(place / "full.json", unknown)
    write_json(place / "ego4d_oe.json", [by_video("videos/v.mp4", open_question(start_time=0, end_time=4.0))])
    forward = ovo_forward("SSR", {"realtime": 4, "step": "stir", "type": 1}, video="v.mp4")
    write_json(place / "ovo_bench_new.json", [ovo_choice(video="v.mp4", realtime=6), forward])
    return place


def evaluated(capsys: Capture, *args: object) -> Any:
    """The JSON object of a run that must succeed; it is all there is on stdout."""
    capsys.readouterr()
    code = run(["eval", "benchmark", *map(str, args), *MODEL, "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return json.loads(printed.out)


def failed(capsys: Capture, *args: object) -> tuple[int, str]:
    capsys.readouterr()
    code = run(["eval", "benchmark", *map(str, args), *MODEL])
    return code, capsys.readouterr().err


def test_floors_come_with_every_run_and_published_rows_beside_them(data: Path, tmp_path: Path, capsys: Capture) -> None:
    told = evaluated(capsys, "mlvu", "--data", data, "--out", tmp_path)

    assert [row["method"] for row in told["rows"]] == ["cacheflow", "blind", "last"]
    for row in told["rows"]:
        own = [task["accuracy"] for task in told["tasks"] if task["method"] == row["method"]]
        assert (row["answered"], row["scored"]) == (2, 2) and row["task_mean"] == pytest.approx(sum(own) / 2)
        assert row["latency_s"] > 0 and row["gpu_memory_gb"] is None
    assert told["rows"][0]["drop"] is not None and told["rows"][1]["drop"] is None
    assert {(row["method"], row["size"]) for row in told["published"]} == {
        ("CacheFlow", "0.5B"), ("ReKV", "0.5B"), ("CacheFlow", "7B"), ("ReKV", "7B"),
    }  # fmt: skip
    settings = told["settings"]
    assert (settings["fps"], settings["top_k"], settings["tau"], told["mode"]) == (0.5, 64, 0.5, "offline")


def test_tables_say_what_was_measured_and_what_published(data: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run(["eval", "benchmark", "mlvu", "--data", str(data), "--out", str(tmp_path), *MODEL]) == 0
    text = capsys.readouterr().out
    for words in ("CacheFlow", "blind (no video)", "last 4 frames", "measured", "published", "per task", "needle"):
        assert words in text
    lines = [line for line in text.splitlines() if "66.9" in line]
    assert len(lines) == 1 and "published" in lines[0] and "7B" in lines[0]


def test_a_second_run_goes_on_and_other_settings_are_refused(data: Path, tmp_path: Path, capsys: Capture) -> None:
    first = evaluated(capsys, "ovo-bench", "--data", data, "--out", tmp_path, "--limit", 1, "--methods", "blind")
    kept = (tmp_path / "answers.jsonl").read_text()
    more = evaluated(capsys, "ovo-bench", "--data", data, "--out", tmp_path, "--methods", "blind,last")

    assert first["mode"] == "streaming" and first["rows"][0]["answered"] == 1
    assert (tmp_path / "answers.jsonl").read_text().startswith(kept)
    assert [(row["method"], row["answered"]) for row in more["rows"]] == [("blind", 2), ("last", 2)]
    assert {task["group"] for task in more["tasks"]} == {"backward", "forward"}
    for option, value in (
        ("--tau", "0.9"),
        ("--fps", "1"),
        ("--top-k", "3"),
        ("--window", "64"),
        ("--mode", "offline"),
    ):
        code, told = failed(capsys, "ovo-bench", "--data", data, "--out", tmp_path, option, value)
        name = {"--window": "window_blocks", "--top-k": "top_k"}.get(option, option.removeprefix("--"))
        assert code == 2 and f"{name} was " in told and "--out" in told and told.count("\n") == 1


def test_egoschema_writes_its_table_and_makes_up_no_accuracy(data: Path, tmp_path: Path, capsys: Capture) -> None:
    told = evaluated(capsys, "egoschema", "--data", data, "--out", tmp_path, "--methods", "cacheflow")
    (row,) = told["rows"]
    lines = Path(told["files"]["table of cacheflow"]).read_text().splitlines()
    assert row["accuracy"] is None and (row["answered"], row["scored"]) == (2, 0)
    assert lines[0] == "q_uid,answer" and [line.split(",")[0] for line in lines[1:]] == ["q-1", "q-2"]
    assert all(line.split(",")[1] in ("-1", "0", "1", "2") for line in lines[1:])


def test_a_judge_scores_open_answers_once(
    data: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHEFLOW_JUDGE_KEY", "secret")
    line = ("rvs-ego", "--data", data, "--out", tmp_path, "--judge-model", "j")
    with judge_server([(200, '{"pred": "yes", "score": 4}')]) as server:
        told = evaluated(capsys, *line, "--judge", server.url)
        asked = len(server.requests)
        again = evaluated(capsys, *line, "--judge", server.url)
        other = evaluated(
            capsys, "rvs-ego", "--data", data, "--out", tmp_path, "--judge", server.url, "--judge-model", "k"
        )
    assert [(row["accuracy"], row["score"]) for row in told["rows"]] == [(100.0, 4.0)] * 3
    assert asked == 3 and again["rows"] == told["rows"] and other["scorer"] == "judge k"
    assert [request[2]["model"] for request in server.requests] == ["j"] * 3 + ["k"] * 3
    assert all(request[1]["Authorization"] == "Bearer secret" for request in server.requests)
    assert all(b"secret" not in path.read_bytes() for path in tmp_path.glob("*.json*"))


def test_a_judge_that_refuses_leaves_the_answers(data: Path, tmp_path: Path, capsys: Capture) -> None:
    line = ("rvs-ego", "--data", data, "--out", tmp_path)
    with judge_server([(401, "no key")]) as server:
        code, told = failed(capsys, *line, "--judge", server.url, "--judge-model", "j")
    assert code == 1 and "HTTP 401" in told and told.count("\n") == 1
    kept = (tmp_path / "answers.jsonl").read_bytes()
    scored = evaluated(capsys, *line, "--scorer", "contains")
    assert kept.count(b"\n") == 3 and (tmp_path / "answers.jsonl").read_bytes() == kept
    assert scored["scorer"] == "contains" and all(row["accuracy"] == 0.0 for row in scored["rows"])


def test_replies_that_cannot_be_read_are_told_and_asked_for_again(
    data: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cacheflow_ray.eval.benchmark.judge._LONGEST_WAIT_S", 0.0)
    line = ("rvs-ego", "--data", data, "--out", tmp_path, "--judge-model", "j", "--methods", "blind")
    with judge_server([(200, "a fine answer")]) as server:
        told = evaluated(capsys, *line, "--judge", server.url)
    with judge_server([(200, '{"pred": "no", "score": 1}')]) as server:
        again = evaluated(capsys, *line, "--judge", server.url)
    assert (told["unjudged"], told["rows"][0]["accuracy"], told["rows"][0]["scored"]) == (1, None, 0)
    assert (again["unjudged"], again["rows"][0]["accuracy"], again["rows"][0]["score"]) == (0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("imagenet --data .", "no benchmark 'imagenet': use one of qaego4d"),
        ("rvs-ego --data .", "give --judge URL and --judge-model"),
        ("rvs-ego --data . --judge http://127.0.0.1:1/v1", "--judge-model"),
        ("rvs-ego --data . --judge nonsense --judge-model j", "no address"),
        ("rvs-ego --data . --scorer best", "scorer: 'best' is not allowed; allowed: judge, exact, contains"),
        ("mlvu --data . --methods cacheflow,rag", "no method 'rag': use some of cacheflow, blind, last"),
        ("mlvu --data . --methods ,", "no methods"),
        ("mlvu --data . --mode later", "mode: 'later' is not allowed; allowed: offline or streaming"),
        ("mlvu --data . --fps 0", "fps: 0.0 is not allowed"),
        ("mlvu --data . --tau 3", "tau: 3.0 is not allowed"),
        ("mlvu --data . --top-k 5000", "top_k: 5000 is not allowed"),
        ("mlvu --data . --limit 0", "--limit"),
        ("mlvu --data .", "no annotations in '.'"),
        ("mlvu", "Missing option '--data'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_leaves_nothing(
    line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    code, told = failed(capsys, *line.split())
    assert code == 2 and said in told and told.startswith("error: ") and told.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_what_the_published_set_up_leaves_open_is_as_the_checkpoint_recommends(
    data: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_toy("tiny-llava-onevision", folder)
    recommended = {"stream": {"block_size": 8, "summary": "segments2", "tau": 0.9}, "ask": {"merge": "rrf", "top_k": 2}}
    write_json(folder / "cacheflow.json", recommended)
    line = ("eval", "benchmark", "mlvu", "--data", str(data), "--out", str(tmp_path / "out"), "--model", str(folder))

    assert run([*line, "--window", "64", "--limit", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    wanted = {"block_size": 8, "summary": "segments2", "merge": "rrf", "window_blocks": 8, "tau": 0.5, "top_k": 64}
    assert {name: told["settings"][name] for name in wanted} == wanted
    assert {row["answered"] for row in told["rows"]} == {1}


def test_more_last_frames_than_a_window_holds_are_refused(data: Path, tmp_path: Path, capsys: Capture) -> None:
    code, told = failed(capsys, "mlvu", "--data", data, "--out", tmp_path, "--last-frames", 1000)
    assert code == 2 and "last_frames: 1000 is not allowed; allowed: 1 to 128" in told


def test_help_names_the_files_and_gives_examples(capsys: Capture) -> None:
    assert run(["eval", "benchmark", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(
        words in text for words in ("$ cacheflow eval benchmark", "ovo_bench_new.json", "--json", "test_mc.json")
    )
    assert run(["eval", "--help"]) == 0
    assert "benchmark" in capsys.readouterr().out
