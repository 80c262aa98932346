"""Every code block of the README runs as it stands (the two make commands are run by continuous integration itself)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from cacheflow_ray.cli.app import run
from cacheflow_ray.media import write_video
from tests.oracles import moving_frames

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def lobby(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the video the README speaks of."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "lobby.mp4", [frame.image for frame in moving_frames(20)], fps=2.0)
    return tmp_path


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert {kind for kind, _ in BLOCKS} == {"", "console", "python"}
    assert [text for kind, text in BLOCKS if not kind] == ["make demo\nmake test\n"]


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "console"])
def test_commands_run(text: str, lobby: Path) -> None:
    for line in text.splitlines():
        prompt, program, *args = shlex.split(line)
        assert (prompt, program) == ("$", "cacheflow")
        assert run(args) == 0, line
    assert (lobby / "evidence.png").read_bytes().startswith(b"\x89PNG")
    assert (lobby / "timeline.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "python"])
def test_python_runs(text: str, lobby: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(text, "README.md", "exec"), {})
    assert "of tokens kept" in capsys.readouterr().out
