from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cacheflow_ray import __version__
from cacheflow_ray.cli.app import run

COMMANDS = ("ingest", "ask", "search", "streams", "inspect", "demo", "serve", "top", "scale", "health")
HEAVY = ("torch", "transformers", "av", "lmdb", "faiss", "numpy", "matplotlib", "pydantic_settings")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize("command", [*COMMANDS[:3], *COMMANDS[4:], "streams list", "streams delete", "streams retain"])
def test_help_of_a_command_has_an_example_and_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert f"$ cacheflow {command}" in text and "--json" in text


def test_help_loads_nothing_heavy() -> None:
    code = f"""
import sys
from cacheflow_ray.cli.app import run
run(["ask", "--help"])
loaded = [name for name in {HEAVY} if name in sys.modules]
sys.exit(f"loaded: {{loaded}}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"cacheflow {__version__}\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("fly", "No such command 'fly'"),
        ("ask", "Missing argument 'QUESTION'"),
        ("ask a q --speed 3", "No such option: --speed"),
        ("ask a q --top-k many", "--top-k"),
        ("ask a q --top-k 5000", "top_k: 5000 is not allowed; allowed: 0 to 4096"),
        ("ask a q --top-k 8 --candidates 4", "candidates: 4 is fewer than top_k = 8"),
        ("ask a q --from soon", "--from: 'soon' is not a time"),
        ("ask a q --from 10 --to 5", "ends before it starts"),
        ("ask a q --merge vote", "merge: 'vote' is not allowed; allowed: 'consensus'"),
        ("ask a q --device gpu", "device: 'gpu' is not allowed; allowed: auto, cpu"),
        ("search a q --top-k 0", "--top-k"),
        ("ingest a.mp4 b.mp4 --stream c", "--stream names one stream"),
        ("ingest a/x.mp4 b/x.mp4", "two sources would both be stream 'x'"),
        ("ingest a.mp4 --fps fast", "fps: 'fast' is not allowed; allowed: above 0 and up to 1000, or all"),
        ("ingest a.mp4 --tau 3", "tau: 3.0 is not allowed; allowed: -1 to 2"),
        ("ingest a.mp4 --reference first", "reference: 'first' is not allowed"),
        ("ingest a.mp4 --label room", "--label: 'room' is not allowed; allowed: NAME=VALUE"),
        ("demo --ask what", "name it with --video"),
        ("streams delete a --json", "confirm with --yes"),
        ("serve --limit max_frames=3", "max_frames: no such key in ServiceLimits; known: max_message_bytes"),
        ("serve --limit max_calls=0", "max_calls: 0 is not allowed"),
        ("serve --cpus-per-encoder -1", "cpus_per_encoder: -1.0 is not allowed"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    line: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert run(line.split()) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and said in printed.err and printed.err.count("\n") == 1


def test_a_wrong_command_line_with_json_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "UsageError"


def test_a_bad_environment_variable_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHEFLOW_DEVICE", "gpu")
    assert run(["streams", "list"]) == 2
    assert "CACHEFLOW_DEVICE: 'gpu' is not allowed" in capsys.readouterr().err
