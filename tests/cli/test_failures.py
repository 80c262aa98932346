from __future__ import annotations

import json

import pytest

from cacheflow_ray import errors
from cacheflow_ray.cli.failures import FAILED, INTERRUPTED, USAGE, Interrupted, failure_of
from cacheflow_ray.cli.output import Output
from memory_store import errors as store_errors


def every_class(root: type[Exception]) -> list[type[Exception]]:
    return [root, *(found for child in root.__subclasses__() for found in every_class(child))]


OURS = every_class(errors.CacheFlowError) + every_class(store_errors.StoreError)
USAGE_ERRORS = {*every_class(errors.UsageError), store_errors.StreamNotFound, store_errors.InvalidRecord}


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_every_error_of_both_trees_has_its_exit_code_and_ids(kind: type[Exception]) -> None:
    failure = failure_of(kind("stream 'a' is\nbroken", stream_id="a"))

    assert failure.exit_code == (USAGE if kind in USAGE_ERRORS else FAILED)
    assert (failure.kind, failure.message, failure.ids) == (kind.__name__, "stream 'a' is broken", {"stream_id": "a"})


def test_a_file_that_cannot_be_written_is_one_line_with_its_name() -> None:
    failure = failure_of(PermissionError(13, "Permission denied", "out.png"))

    assert (failure.exit_code, failure.message) == (FAILED, "out.png: Permission denied")


def test_a_bug_says_so_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    failure_of(KeyError("x")).show(Output(as_json=False))

    printed = capsys.readouterr()
    assert printed.err.startswith("error: unexpected KeyError: 'x'") and printed.err.count("\n") == 1
    assert printed.out == ""


def test_debugging_shows_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEFLOW_DEBUG", "1")
    failure_of(KeyError("x"))
    assert "KeyError: 'x'" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted("interrupted: go on later")])
def test_ctrl_c_exits_with_130(error: BaseException) -> None:
    failure = failure_of(error)
    assert failure.exit_code == INTERRUPTED and failure.message.startswith("interrupted")


def test_a_reader_that_went_away_is_not_worth_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    failure_of(BrokenPipeError()).show(Output(as_json=True))
    assert capsys.readouterr() == ("", "")


def test_with_json_the_error_is_the_object(capsys: pytest.CaptureFixture[str]) -> None:
    failure_of(errors.SourceNotFound("no file 'a'", source="a")).show(Output(as_json=True))

    printed = capsys.readouterr()
    assert printed.err == "error: no file 'a'\n"
    assert json.loads(printed.out) == {
        "error": {"type": "SourceNotFound", "message": "no file 'a'", "ids": {"source": "a"}}
    }


def test_the_end_of_the_interpreter_is_not_a_failure() -> None:
    with pytest.raises(SystemExit):
        failure_of(SystemExit(3))
