"""What a name stands for, and what is wrong with it, before any server is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from insightv.backends.model_folder import embedded_weights
from insightv.backends.vllm.model import vllm
from insightv.backends.vllm.source import servable, source_of
from insightv.backends.vllm.weight_names import needs_renaming, tensor_names
from insightv.errors import ConfigError, InputError
from tests.backends.vllm_models import PROJECTOR, adapter_folder, model_folder


def names(folder: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(str(folder / "model.safetensors"), framework="numpy") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a mapping


def test_a_hub_id_and_a_model_directory_are_models(tmp_path: Path) -> None:
    assert source_of("Qwen/Qwen2.5-VL-7B").model == "Qwen/Qwen2.5-VL-7B"
    folder = model_folder(tmp_path / "model")
    assert source_of(str(folder)) == source_of(str(folder), None)
    assert source_of(str(folder)).served_as == "base"


def test_an_adapter_names_its_model_and_its_weights(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base")
    one, other = (adapter_folder(tmp_path / str(seed) / "adapter", base, seed=seed, rank=20) for seed in (1, 2))
    sources = [source_of(str(folder)) for folder in (one, other)]
    assert [source.model for source in sources] == [str(base)] * 2
    adapters = [source.adapter for source in sources if source.adapter]
    assert adapters[0].name.startswith("1-")
    assert adapters[0].name.split("-")[1] != adapters[1].name.split("-")[1]
    assert adapters[0].room == 32
    assert not adapters[0].outside
    wide = source_of(str(adapter_folder(tmp_path / "wide", base, name=PROJECTOR))).adapter
    assert wide
    assert wide.outside
    elsewhere = model_folder(tmp_path / "elsewhere")
    assert source_of(str(one), str(elsewhere)).model == str(elsewhere)


def test_what_cannot_be_served_is_told(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, says in (
        (str(tmp_path / "empty"), "no config.json"),
        (str(tmp_path / "file"), "neither"),
        ("", "neither"),
    ):
        with pytest.raises(ConfigError, match=says):
            source_of(name)
    with pytest.raises(ConfigError, match="is no adapter"):
        source_of(str(base), "other/model")
    huge = adapter_folder(tmp_path / "huge", base, rank=600)
    with pytest.raises(ConfigError, match="rank 600; vLLM serves LoRA adapters of rank 1 to 512: merge it"):
        source_of(str(huge))
    nameless = adapter_folder(tmp_path / "nameless", base)
    (nameless / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    with pytest.raises(ConfigError, match="does not name its model; give it as the option `base`"):
        source_of(str(nameless))
    (nameless / "adapter_model.safetensors").unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        source_of(str(nameless))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"program": "/not/there/vllm"}, "'/not/there/vllm' is not there: install vLLM in an environment of its own"),
        ({"arguments": ["--port", "9"]}, "'--port', which insightv sets itself"),
        ({"arguments": ["--port=9"]}, "which insightv sets itself"),
        ({"arguments": "--dtype half"}, "arguments is a list of texts"),
        ({"environment": {"A": 1}}, "environment a table of texts"),
        ({"start_s": 0}, "start_s is 0"),
    ],
)
def test_settings_that_cannot_be_used_are_told(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        vllm(str(model_folder(tmp_path / "base")), **{"program": "sh", **options})


def test_a_llava_model_is_copied_once_with_the_names_that_vllm_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    teacher = embedded_weights("teacher")
    copy = Path(servable(str(teacher)))
    assert copy.is_relative_to(tmp_path / "insightv" / "served")
    assert needs_renaming(teacher)
    assert not needs_renaming(copy)
    renamed = {
        name.replace("vision_tower.vision_model.", "vision_tower."): shape for name, shape in names(copy).items()
    }
    assert renamed == names(teacher)
    before = (copy / "model.safetensors").stat().st_mtime_ns
    assert servable(str(teacher)) == str(copy)
    assert (copy / "model.safetensors").stat().st_mtime_ns == before
    assert servable(str(copy)) == str(copy)
    assert servable("owner/name") == "owner/name"


def test_a_cut_file_of_weights_is_told(tmp_path: Path) -> None:
    whole = (embedded_weights("teacher") / "model.safetensors").read_bytes()
    for size in (0, 5, 100):
        (tmp_path / "cut.safetensors").write_bytes(whole[:size])
        with pytest.raises(InputError, match="no safetensors file, or is cut"):
            tensor_names(tmp_path / "cut.safetensors")
