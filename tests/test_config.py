from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args, get_type_hints

import pytest

from cacheflow_ray.config import (
    AskOptions,
    Defaults,
    MergeRule,
    ModelOptions,
    Recommended,
    Reference,
    Section,
    ServiceLimits,
    ServiceOptions,
    StreamSettings,
)
from cacheflow_ray.core import consensus
from cacheflow_ray.core.dropping import DropRule
from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.types import TimeRange


@pytest.mark.parametrize("section", [StreamSettings, AskOptions, ModelOptions, ServiceOptions, ServiceLimits])
def test_defaults_are_valid_and_cannot_be_changed(section: type[Section]) -> None:
    made = section()
    name = next(iter(section.model_fields))
    with pytest.raises(Exception, match="frozen"):
        setattr(made, name, getattr(made, name))


@pytest.mark.parametrize("section", [StreamSettings, AskOptions, ModelOptions, ServiceOptions, ServiceLimits])
def test_an_unknown_key_is_named_with_the_known_ones(section: type[Section]) -> None:
    with pytest.raises(InvalidConfig, match=r"^taw: no such key .*known: ") as raised:
        section.model_validate({"taw": 1})
    assert raised.value.ids == {"key": "taw"}


@pytest.mark.parametrize(
    ("make", "key", "allowed"),
    [
        (lambda: StreamSettings(fps=0.0), "fps", "above 0 and up to 1000, or None"),
        (lambda: StreamSettings(fps=math.inf), "fps", "above 0 and up to 1000, or None"),
        (lambda: StreamSettings(tau=2.5), "tau", "-1 to 2"),
        (lambda: StreamSettings(tau=math.nan), "tau", "-1 to 2"),
        (lambda: StreamSettings(reference="first"), "reference", "'previous' or 'last_kept'"),
        (lambda: StreamSettings(block_size=0), "block_size", "1 to 65536, or None"),
        (lambda: StreamSettings(block_size=True), "block_size", "1 to 65536, or None"),
        (lambda: StreamSettings(summary=""), "summary", "the name of a summary, or None"),
        (lambda: AskOptions(top_k=-1), "top_k", "0 to 4096"),
        (lambda: AskOptions(top_k="8"), "top_k", "0 to 4096"),
        (lambda: AskOptions(candidates=7), "candidates", "top_k or more, or None"),
        (lambda: AskOptions(merge="vote"), "merge", "'consensus', 'rrf', 'interleave', 'last' or 'first'"),
        (lambda: AskOptions(session_id=""), "session_id", "1 to 128 letters, digits, '.', '_' or '-', or None"),
        (lambda: ModelOptions(device="gpu"), "device", "auto, cpu, cuda or cuda:N"),
        (lambda: ServiceOptions(port=65536), "port", "0 to 65535"),
        (lambda: ServiceOptions(metrics_port=-1), "metrics_port", "0 to 65535, or None"),
        (lambda: ServiceLimits(max_questions=0), "max_questions", "1 or more"),
        (lambda: ServiceLimits(max_message_bytes=1), "max_message_bytes", "65536 to 2147483647"),
        (lambda: ModelOptions(dtype="float64"), "dtype", "'auto', 'float32', 'bfloat16' or 'float16'"),
    ],
)
def test_a_bad_value_names_its_key_and_what_is_allowed(make: Callable[[], Section], key: str, allowed: str) -> None:
    with pytest.raises(InvalidConfig) as raised:
        make()
    message = str(raised.value)
    assert message.startswith(f"{key}: ") and message.endswith(f"allowed: {allowed}") and "\n" not in message


def test_settings_survive_json() -> None:
    settings = StreamSettings(fps=None, tau=0.25, reference="last_kept", block_size=16, window_blocks=4)

    assert StreamSettings.model_validate(settings.model_dump(mode="json")) == settings


def test_candidates_default_to_four_times_top_k() -> None:
    assert AskOptions(top_k=5).num_candidates == 20
    assert AskOptions(top_k=5, candidates=7).num_candidates == 7


def test_rules_are_those_the_core_has() -> None:
    drop_rule = get_type_hints(DropRule)["reference"]
    assert get_args(MergeRule) == get_args(consensus.MergeRule)
    assert get_args(Reference) == get_args(drop_rule)


def test_an_open_time_range_is_kept() -> None:
    assert AskOptions(time_range=TimeRange(start_s=3.0)).time_range == TimeRange(start_s=3.0)


def test_the_environment_sets_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEFLOW_DATA", "elsewhere")
    monkeypatch.setenv("CACHEFLOW_DEVICE", "cuda:1")
    monkeypatch.setenv("CACHEFLOW_MODEL", "")  # an empty variable is none
    monkeypatch.setenv("CACHEFLOW_RAY_PORT", "tcp://10.0.0.1:80")  # as Kubernetes injects for a service of that name

    made = Defaults.from_environment()

    assert (str(made.data), made.device, made.model) == ("elsewhere", "cuda:1", Defaults().model)


def test_a_bad_variable_is_named_with_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEFLOW_DTYPE", "int8")
    with pytest.raises(InvalidConfig, match=r"^CACHEFLOW_DTYPE: 'int8' .*allowed: 'auto', 'float32'"):
        Defaults.from_environment()


def test_what_the_user_sets_stands_over_what_a_checkpoint_recommends() -> None:
    recommended = Recommended.model_validate_json('{"stream": {"tau": 0.8, "fps": 2.0}, "ask": {"top_k": 4}}')
    settings = recommended.stream_settings(StreamSettings(tau=0.5))
    assert (settings.tau, settings.fps, settings.summary) == (0.5, 2.0, None)
    assert recommended.stream_settings(None).tau == 0.8
    assert recommended.ask_options(AskOptions(max_new_tokens=3)).top_k == 4
    assert recommended.ask_options(AskOptions(top_k=8)).top_k == 8


def test_a_recommendation_of_what_no_setting_is_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="tao"):
        Recommended.model_validate_json('{"stream": {"tao": 0.8}}')
