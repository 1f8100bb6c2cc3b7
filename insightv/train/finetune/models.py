"""A vision-language model for training: loaded, with the right parts frozen, and back to a plain directory.

Vision tower frozen, projector and language model trained (paper, section 4). Knows models, no rows and no trainer.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insightv.backends.checkpoints import ADAPTER
from insightv.backends.model_folder import foreign_code, misfit, reaches_out
from insightv.errors import ConfigError, InputError, require
from insightv.train.finetune.rounding import kept_share, of_adapters, of_files
from insightv.train.finetune.settings import TrainSettings

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

_PROJECTORS = {
    "multi_modal_projector",
    "merger",
    "deepstack_merger_list",
    "connector",
    "mm_projector",
    "modality_projection",
    "vision_projection",
    "embed_vision",
    "aligner",
    "image_newline",
}


def fetched(name: str, revision: str | None) -> Path:
    """The directory of a model of the hub at a revision (None: its newest), downloaded where it is not here yet.

    Weights in safetensors and settings are taken, no code and no pickles. The directory is that of one commit.

    Raises:
        InputError: it cannot be had.
    """
    require("transformers", "train")
    import httpx2
    from huggingface_hub import snapshot_download

    wanted = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*", "consolidated*"])
        )
    except (OSError, ValueError, httpx2.HTTPError) as error:
        at = f" at the revision {revision!r}" if revision else ""
        raise InputError(f"the model {name!r}{at} cannot be had from the hub, nor is it here: {error}") from error


def load_processor(folder: str | Path) -> ProcessorMixin:
    """The processor of a model, with the side and token of padding that training needs.

    Raises:
        InputError: the directory has no processor with a tokenizer and a chat template.
    """
    require("transformers", "train")
    from transformers import AutoProcessor

    if Path(folder).is_dir() and (wrong := reaches_out(Path(folder))):  # seen before anything is built of its config
        raise InputError(f"the model {str(folder)!r} {wrong}")

    load: Any = AutoProcessor
    try:
        processor = load.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{str(folder)!r} has no processor that can be loaded: {error}") from error
    if getattr(processor, "tokenizer", None) is None:
        raise InputError(
            f"{str(folder)!r} is a text model; name a vision-language model (with preprocessor_config.json)"
        )
    if not getattr(processor, "chat_template", None):
        raise InputError(f"the processor in {str(folder)!r} has no chat template; add chat_template.jinja")
    _refuse_foreign_code(folder, processor)
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    loaded: ProcessorMixin = processor
    return loaded


def end_tokens(folder: str | Path, config: PretrainedConfig) -> frozenset[int]:
    """The tokens at which a model stops by its generation settings, or where it has none by its configuration."""
    from transformers import GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(str(folder))
    except OSError:
        found = GenerationConfig.from_model_config(config)
    ends: Any = found.eos_token_id
    return frozenset(end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int))


def uses_bf16(settings: TrainSettings) -> bool:
    """Whether training computes in bfloat16."""
    import torch

    if settings.bf16 is None and settings.trl.get("fp16"):  # TRL takes one of the two
        return False
    if settings.bf16 is None:
        return settings.device == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return settings.bf16


def load_model(folder: str | Path, settings: TrainSettings) -> PreTrainedModel:
    """The weights, ready to be trained by the method of the settings.

    All weights are trained in float32 (computing in bfloat16 where asked for): steps of 5e-6 vanish in bfloat16.
    Weights that stay as they are, below adapters, are held in bfloat16 where training computes in it.

    Raises:
        InputError: the weights cannot be loaded, are no safetensors, or do not fit the model's configuration.
        MissingExtra: "qlora" without bitsandbytes.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    if Path(folder).is_dir() and (wrong := reaches_out(Path(folder))):
        raise InputError(f"the model {str(folder)!r} {wrong}")
    half = uses_bf16(settings) and settings.method != "full"
    options: dict[str, Any] = {"dtype": torch.bfloat16 if half else torch.float32, "trust_remote_code": False}
    if settings.method == "qlora":
        options["quantization_config"] = _four_bits(half)
    load: Any = AutoModelForImageTextToText
    wanted = {"use_safetensors": True, "output_loading_info": True}
    try:
        loaded: tuple[PreTrainedModel, dict[str, Any]] = load.from_pretrained(str(folder), **options, **wanted)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        hint = "; only safetensors are loaded, never pickles (.bin)" if "safetensors" in str(error) else ""
        raise InputError(f"the model {str(folder)!r} cannot be loaded: {error}{hint}") from error
    model, report = loaded
    if wrong := misfit(report):
        raise InputError(f"the weights in {str(folder)!r} {wrong}")
    _refuse_foreign_code(folder, model, model.config)
    model.config.use_cache = False
    freeze(model, settings)
    return model


def _refuse_foreign_code(folder: str | Path, *parts: object) -> None:
    if module := foreign_code(*parts):
        raise InputError(f"the model {str(folder)!r} brought its own code ({module}), which insightv never runs")


def _four_bits(half: bool) -> Any:
    require("bitsandbytes", "train")
    import torch
    from transformers import BitsAndBytesConfig

    make: Any = BitsAndBytesConfig
    compute = torch.bfloat16 if half else torch.float32
    return make(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )


def vision_tower(model: nn.Module) -> str:
    """The name of the module that holds the vision tower.

    Raises:
        ConfigError: the model has none that can be told.
    """
    find: Any = model
    tower = find.get_encoder(modality="image")
    for name, module in model.named_modules():
        if module is tower and name:
            return str(name)
    raise ConfigError(f"{type(model).__name__} has no vision tower that can be told; name a vision-language model")


def part_of(name: str, tower: str) -> str:
    """Whether a parameter or module belongs to the "vision" tower, the "projector" or the "language" model."""
    if _PROJECTORS & set(name.split(".")):
        return "projector"
    return "vision" if name == tower or name.startswith(f"{tower}.") else "language"


def freeze(model: nn.Module, settings: TrainSettings) -> None:
    """Freeze the vision tower, and the projector where it is not to be trained."""
    tower = vision_tower(model)
    trained = {"language", "projector"} if settings.train_projector else {"language"}
    for name, weight in model.named_parameters():
        if weight.is_floating_point():
            weight.requires_grad_(part_of(name, tower) in trained)


def adapted_layers(model: nn.Module, settings: TrainSettings) -> dict[str, nn.Linear]:
    """The linear layers that get adapters: all that are trained but the head, where TRL cannot train one."""
    from torch import nn

    tower, get = vision_tower(model), getattr(model, "get_output_embeddings", None)
    head = get() if callable(get) else None
    trained = {"language", "projector"} if settings.train_projector else {"language"}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and part_of(name, tower) in trained
    }


def lora_config(model: nn.Module, settings: TrainSettings) -> LoraConfig | None:
    """The adapters to train; None where all weights are."""
    if settings.method == "full":
        return None
    from peft import LoraConfig

    # Layers are written once, not by number: `layers.0.self_attn.q_proj` and its like as one pattern.
    names = {re.sub(r"\\\.\d+(?=\\\.)", r"\\.\\d+", re.escape(name)) for name in adapted_layers(model, settings)}
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="|".join(sorted(names)),
        bias="none",
        task_type="CAUSAL_LM",
    )


def trained_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that training may move, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def digest_of(model: nn.Module) -> str:
    """A hash of all weights that training may move, bit for bit."""
    import torch

    digest = hashlib.sha256()
    for name, weight in sorted(trained_weights(model).items()):
        raw = weight.detach().contiguous().cpu().flatten().view(torch.uint8)
        digest.update(f"{name}\0".encode())
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def write_plain(
    trained: Path, base: str | Path, policy: str | Path, settings: TrainSettings, folder: Path
) -> tuple[float | None, str]:
    """Write a trained model into `folder` as a plain directory that loads by itself.

    `trained` is what the trainer saved: the whole model, or an adapter, which is merged into `base`, the weights below
    it, and kept beside them in `adapter/`. Returns how much of the change the type on disk keeps (see `rounding`), and
    the type's name.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    load: Any = AutoModelForImageTextToText
    config: Any = AutoConfig.from_pretrained(str(base), trust_remote_code=False)
    safely = {"use_safetensors": True, "trust_remote_code": False}
    dtype = getattr(torch, settings.save_dtype) if settings.save_dtype else config.dtype or torch.float32
    kept: float | None = None
    if settings.method == "full":
        model = load.from_pretrained(str(trained), dtype=dtype, **safely)
        if dtype != torch.float32 and Path(policy).is_dir():
            kept = kept_share(of_files(Path(policy), trained), dtype)
    else:
        from peft import PeftModel

        below = load.from_pretrained(str(base), dtype=torch.float32, **safely)
        adapted = PeftModel.from_pretrained(below, str(trained))
        if dtype != torch.float32:
            before = None if Path(base).absolute() == Path(policy).absolute() else Path(policy) / ADAPTER
            kept = kept_share(of_adapters(adapted, before), dtype)
        model = adapted.merge_and_unload(safe_merge=True).to(dtype)
        (folder / ADAPTER).mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(trained / name, folder / ADAPTER / name)
    model.config.use_cache = True
    model.save_pretrained(folder)
    save: Any = load_processor(policy)
    save.save_pretrained(folder)
    return kept, str(dtype).removeprefix("torch.")
