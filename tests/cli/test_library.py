"""`search` and `ask` over all streams: in this process, and of a service."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cacheflow_ray.cli.app import run
from cacheflow_ray.media import write_video
from memory_store import Store
from tests.cli.asked import asked
from tests.oracles import moving_frames
from tests.service.mortal import MortalCluster, served

Capture = pytest.CaptureFixture[str]

MODEL = "random:tiny-llava-onevision"
SITES = {"cam-1": "north", "cam-2": "south", "door": "north"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    for number, name in enumerate(SITES):
        write_video(folder / f"{name}.mp4", [frame.image for frame in moving_frames(24, seed=number)], fps=2.0)
    return {name: folder / f"{name}.mp4" for name in SITES}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, clips: dict[str, Path]) -> str:
    """Streams with labels, of a model that is not the default."""
    folder = str(tmp_path_factory.mktemp("store"))
    for name, site in SITES.items():
        line = ["ingest", str(clips[name]), "--data", folder, "--model", MODEL, "--fps", "2", "--tau", "0.98"]
        assert run([*line, "--block-size", "15", "--window", "2", "--label", f"site={site}"]) == 0
    return folder


def found(capsys: Capture, *args: str) -> set[str]:
    """Streams of the moments."""
    return {moment["stream"] for moment in asked(capsys, "search", *args)["moments"]}


def test_without_a_stream_all_are_searched_or_those_described(store: str, capsys: Capture) -> None:
    line = ("a grey patch", "--data", store, "--top", "50")
    assert found(capsys, *line) == set(SITES)
    assert found(capsys, *line, "--label", "site=north") == {"cam-1", "door"}
    assert found(capsys, *line, "--streams", "cam-*", "--label", "site=north") == {"cam-1"}
    assert found(capsys, "door", "cam-2", *line) == {"door", "cam-2"}
    told = asked(capsys, "search", *line, "--from", "0:05", "--to", "7")
    assert {moment["stream"] for moment in told["moments"]} == set(SITES)
    assert all(moment["end_s"] >= 5 and moment["start_s"] <= 7 for moment in told["moments"])
    assert (told["text"], told["warnings"], told["picture"]) == ("a grey patch", [], None)


def test_dates_are_of_the_clock(store: str, capsys: Capture) -> None:
    """The door's video began at eight; of the others nobody knows when they did."""
    line = ("search", "a grey patch", "--data", store, "--top", "50")
    with Store.open(store) as opened:
        opened.relabel("door", {"site": "north", "start": "2026-04-11T08:00:00+00:00"})
    told = asked(capsys, *line, "--from", "2026-04-11T08:00:05", "--to", "2026-04-11T10:00:07+02:00")
    assert {moment["stream"] for moment in told["moments"]} == {"door"}
    assert all(moment["end_s"] >= 5 and moment["start_s"] <= 7 for moment in told["moments"])
    assert "left out 2 streams whose label 'start'" in told["warnings"][0]
    assert run([*line, "--from", "2026-04-12"]) == 1
    assert "of that time" in capsys.readouterr().err


def test_one_stream_is_searched_as_ever(store: str, capsys: Capture) -> None:
    told = asked(capsys, "search", "door", "a grey patch", "--data", store, "--top-k", "3")
    assert set(told) == {"stream", "text", "evidence", "picture"} and told["stream"] == "door"
    assert sum(len(own["block_idxs"]) for own in told["evidence"]) == 3


def test_moments_are_shown_with_their_streams(store: str, tmp_path: Path, capsys: Capture) -> None:
    sheet = tmp_path / "pictures" / "sheet.png"
    assert run(["search", "a grey patch", "--data", store, "--top", "5", "--sheet", str(sheet)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["stream", "from", "to", "evidence", "score", "blocks"]
    assert len(lines) == 5 and {line.split()[0] for line in lines} <= set(SITES)
    with Image.open(sheet) as image:
        assert (image.format, image.width > 800) == ("PNG", True)


def test_the_index_is_kept(store: str, capsys: Capture) -> None:
    found(capsys, "a grey patch", "--data", store)
    assert list(Path(store).rglob("library/*/manifest"))


HOLD = """
import sys
from memory_store import Store
with Store.open(sys.argv[1]):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_while_another_writes_one_can_search(store: str, capsys: Capture) -> None:
    line = [sys.executable, "-c", HOLD, store]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        assert found(capsys, "a grey patch", "--data", store, "--top", "50") == set(SITES)


def test_the_library_is_asked_and_says_who_answers(store: str, tmp_path: Path, capsys: Capture) -> None:
    picture = tmp_path / "evidence.png"
    line = ("what is there?", "--data", store, "--max-new-tokens", "4")
    first = asked(capsys, "search", "what is there?", "--data", store)["moments"][0]["stream"]
    told = asked(capsys, "ask", "--library", *line, "--evidence", str(picture))
    assert told["stream"] == first and told["evidence"] and picture.exists()
    assert asked(capsys, "ask", *line, "--label", "site=south")["stream"] == "cam-2"
    assert asked(capsys, "ask", "door", "cam-2", *line)["stream"] in {"door", "cam-2"}

    assert run(["ask", "--library", *line, "--streams", "d*"]) == 0
    out = capsys.readouterr().out
    assert "from door:" in out and "to follow up: cacheflow ask door ... --session" in out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ask who?", "name a stream before the question, or ask all of them with --library"),
        ("ask --library door who?", "--library asks all streams, and 'door' names one"),
        ("ask door who? --streams d*", "'door' is a stream"),
        ("ask --library who? --session s-1", "a session belongs to one stream"),
        ("search door who? --label site=north", "'door' is a stream"),
        ("search who? --label north", "--label: 'north' is not allowed; allowed: NAME=VALUE"),
        ("search who? --top 0", "--top"),
        ("search door who? --from 2026-04-11", "use --streams 'door'"),
        ("search who? --from 2026-13-11", "--from: '2026-13-11' is not a date"),
        ("search who? --from 2026-04-11 --to 9:00", "--to: '9:00' is not a date"),
        ("ask door who? --to 2026-04-11T08:00", "use --streams 'door'"),
        ("search who? --streams x*", "there are no streams 'x*'"),
        ("search who? --label site=west", "there are no streams labelled site=west"),
        ("search who? --from 1:00:00", "between 3600 s and inf s"),
        ("search", "Missing argument 'TEXT'"),
    ],
)
def test_what_makes_no_sense_is_one_line(store: str, line: str, said: str, capsys: Capture) -> None:
    assert run([*line.split(), "--data", store]) in (1, 2)
    err = capsys.readouterr().err
    assert said in err and err.startswith("error: ") and err.count("\n") == 1


def test_streams_of_two_models_need_a_choice(
    store: str, clips: dict[str, Path], tmp_path: Path, capsys: Capture
) -> None:
    folder = str(tmp_path / "mixed")
    for name, model in (("one", MODEL), ("two", "random:tiny-qwen2-vl")):
        line = ["ingest", str(clips["door"]), "--stream", name, "--data", folder, "--model", model, "--tau", "0.98"]
        assert run([*line, "--fps", "2", "--block-size", "15", "--window", "2"]) == 0
    assert run(["search", "a patch", "--data", folder]) == 2
    assert "made with models random:tiny-llava-onevision and random:tiny-qwen2-vl" in capsys.readouterr().err
    assert found(capsys, "a patch", "--data", folder, "--streams", "two") == {"two"}
    assert run(["search", "a patch", "--data", folder, "--model", MODEL]) == 0
    assert "warning: left out 1 stream written with another model: two" in capsys.readouterr().err


def test_a_service_is_searched_and_asked_the_same(
    clips: dict[str, Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = MortalCluster(warnings=("one was left out",))
    with served(cluster) as address:
        monkeypatch.setenv("CACHEFLOW_SERVER", address)
        for name, site in SITES.items():
            assert run(["ingest", str(clips[name]), "--label", f"site={site}"]) == 0
        assert found(capsys, "a car") == set(SITES)
        assert found(capsys, "a car", "--label", "site=north", "--streams", "d*") == {"door"}
        sheet = tmp_path / "sheet.png"
        told = asked(capsys, "search", "a car", "--top", "2", "--sheet", str(sheet))
        assert (told["warnings"], told["picture"], sheet.exists()) == (["one was left out"], str(sheet), True)
        assert asked(capsys, "ask", "--library", "how many?", "--label", "site=south")["stream"] == "cam-2"
        assert run(["ask", "--library", "how many?"]) == 0
        printed = capsys.readouterr()
        assert "two red cars" in printed.out and "warning: one was left out" in printed.err
        assert run(["search", "a car", "--streams", "x*"]) == 1
        assert "there are no streams 'x*'" in capsys.readouterr().err
        assert run(["search", "a car", "--streams", "a/b"]) == 2
        assert "library.stream_glob" in capsys.readouterr().err


def test_the_page_about_it_runs(store: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "library.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in blocks] == ["console", "python"]
    (tmp_path / "cacheflow-data").symlink_to(store)
    monkeypatch.chdir(tmp_path)
    for line in blocks[0][1].splitlines():
        prompt, program, *args = shlex.split(line)
        assert (prompt, program, run(args)) == ("$", "cacheflow", 0), line
    assert (tmp_path / "moments.png").exists()
    capsys.readouterr()
    code = blocks[1][1].replace('open("cacheflow-data")', f'open("cacheflow-data", model="{MODEL}")')
    assert MODEL in code
    exec(compile(code, "library.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[0].startswith("cam-1 ")
