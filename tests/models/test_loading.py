"""Checkpoint folders of every family, and one-line refusals of everything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from cacheflow_ray.config import ModelOptions
from cacheflow_ray.errors import ModelLoadError, UnsupportedModel
from cacheflow_ray.models import FAMILIES as ADAPTERS
from cacheflow_ray.models import VideoModel, load_model
from cacheflow_ray.models.random_weights import PRESETS, build_random, byte_tokenizer
from tests.oracles import save_toy

CPU = ModelOptions.model_validate({"device": "cpu"})


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(family, tmp_path_factory.mktemp("saved") / family)


@pytest.fixture
def llava(tmp_path: Path) -> Path:
    return save_toy("tiny-llava-onevision", tmp_path / "llava")


def options(**changes: str) -> ModelOptions:
    return ModelOptions.model_validate({"device": "cpu", **changes})


def of_seed(family: str, seed: int) -> VideoModel:
    loaded = build_random(family, device=torch.device("cpu"), dtype=torch.float32, seed=seed)
    return VideoModel(family, loaded, ADAPTERS[loaded.model.config.model_type](loaded))


def refusal(name: str | Path, kind: type[Exception] = ModelLoadError, chosen: ModelOptions = CPU) -> str:
    with pytest.raises(kind) as caught:
        load_model(str(name), chosen)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_saved_folder_is_the_same_model_each_time(folder: Path, model: VideoModel) -> None:
    first, second = (load_model(str(folder), CPU) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert first.prompt.prefix_ids == model.prompt.prefix_ids
    assert torch.equal(first.prefix.kv, model.prefix.kv)
    assert first.vision.grid(84, 112) == model.vision.grid(84, 112)


def test_other_weights_or_dtype_have_another_fingerprint(family: str, folder: Path) -> None:
    prints = [
        of_seed(family, 0),
        of_seed(family, 0),
        of_seed(family, 1),
        load_model(str(folder), options(dtype="bfloat16")),
    ]
    first, again, other_seed, other_dtype = (each.fingerprint for each in prints)
    assert first == again
    assert len({first, other_seed, other_dtype}) == 3


def test_one_changed_weight_changes_the_fingerprint(family: str) -> None:
    changed = of_seed(family, 0)
    parameter = next(changed._loaded.model.parameters())
    with torch.no_grad():
        parameter.view(-1)[-1] += 1
    again = VideoModel(family, changed._loaded, changed._parts)
    assert again.fingerprint != changed.fingerprint


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_is_the_one_asked_for(folder: Path, dtype: str) -> None:
    model = load_model(str(folder), options(dtype=dtype))
    assert model.dtype == model.prefix.kv.dtype == model.embed([1]).dtype == getattr(torch, dtype)


def clip_config() -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    return hf.CLIPConfig(text_config=sizes, vision_config={**sizes, "image_size": 28, "patch_size": 14})


def llava_config() -> Any:
    text = hf.LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1)
    return hf.LlavaConfig(text_config=text)


@pytest.mark.parametrize("config", [clip_config, llava_config])
def test_family_without_adapter_is_refused_naming_its_kind(config: Callable[[], Any], tmp_path: Path) -> None:
    made = config()
    made.save_pretrained(tmp_path)
    message = refusal(tmp_path, UnsupportedModel)
    assert f"kind {made.model_type!r}" in message and "no adapter (vision tower, positions and prompt" in message
    assert all(name in message for name in ADAPTERS)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_sliding_window_layers_are_refused(llava: Path) -> None:
    layers = ["full_attention", "sliding_attention"] * 2
    edit(
        llava / "config.json",
        lambda config: config["text_config"].update(
            use_sliding_window=True, sliding_window=64, max_window_layers=1, layer_types=layers
        ),
    )
    assert "layers of type sliding_attention" in refusal(llava, UnsupportedModel)


def test_length_dependent_rope_is_refused(llava: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e6, "factor": 2.0}
    edit(llava / "config.json", lambda config: config["text_config"].update(rope_parameters=rope))
    assert "'dynamic' changes with the length" in refusal(llava, UnsupportedModel)


def test_folder_without_template_is_refused(llava: Path) -> None:
    (llava / "chat_template.jinja").unlink()
    assert "no chat template" in refusal(llava, UnsupportedModel)


def test_template_beside_the_tokenizer_is_found(llava: Path) -> None:
    """Older checkpoints keep it in chat_template.json."""
    template = (llava / "chat_template.jinja").read_text()
    (llava / "chat_template.jinja").unlink()
    (llava / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert load_model(str(llava), CPU).prompt.prefix_ids


def test_missing_folder_is_one_line(tmp_path: Path) -> None:
    message = refusal(tmp_path / "nowhere")
    assert "nowhere" in message and "random:<preset>" in message


def test_file_in_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a model")
    assert "cannot load model" in refusal(tmp_path / "file")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: shutil.rmtree(folder),
        lambda folder: [path.unlink() for path in folder.glob("*token*")],
        lambda folder: (folder / "tokenizer.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("[]"),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "model.safetensors").write_bytes(b"no tensors here"),
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1000]),
        lambda folder: (folder / "preprocessor_config.json").write_text("{"),
    ],
    ids=[
        "folder", "no tokenizer", "broken tokenizer", "broken config", "odd config", "no weights", "broken weights",
        "short weights", "broken processor",
    ],
)  # fmt: skip
def test_unreadable_checkpoint_is_one_line(llava: Path, damage: Callable[[Path], object]) -> None:
    damage(llava)
    assert f"cannot load model {str(llava)!r}" in refusal(llava)


def test_missing_weights_are_refused_by_name(llava: Path) -> None:
    """The library would go on with random ones."""
    path = llava / "model.safetensors"
    weights = load_file(path)
    lost = next(name for name in weights if "k_proj.weight" in name)
    del weights[lost]
    save_file(weights, path, metadata={"format": "pt"})
    assert "1 of its weights are missing" in refusal(llava)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_a_device_is_refused(llava: Path) -> None:
    for name in (str(llava), "random:tiny-qwen2-vl"):
        assert "no CUDA device: use --device cpu" in refusal(name, chosen=options(device="cuda"))


def test_unknown_preset_lists_the_presets() -> None:
    message = refusal("random:unknown", UnsupportedModel)
    assert "'unknown'" in message and all(preset in message for preset in PRESETS)


def test_byte_tokenizer_gives_back_any_text() -> None:
    tokenizer = byte_tokenizer("<video>")
    spoken = "wer läuft? 🐈\t\x00 猫"
    assert tokenizer.decode(tokenizer(spoken)["input_ids"]) == spoken


def test_a_checkpoint_recommends_settings(llava: Path) -> None:
    assert load_model(str(llava), CPU).recommended.stream_settings(None).tau == 0.5
    (llava / "cacheflow.json").write_text('{"stream": {"tau": 0.8}}')
    assert load_model(str(llava), CPU).recommended.stream_settings(None).tau == 0.8
