"""Loading a model and its processor: safetensors only, no code from the model's own files."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from insightv.backends.hf.source import ModelSource
from insightv.backends.model_folder import foreign_code, misfit
from insightv.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
SMALL = 500_000_000
"""Parameters up to which a CPU is given float32: half precision pays only where reading the weights is the limit."""


@dataclass(frozen=True)
class Loaded:
    """A model ready to run. `ends` are the tokens that end a reply, `context` is the most tokens it can hold.

    Processor and tokenizer are untyped because the annotations of transformers say `str` for whatever they return.
    """

    model: PreTrainedModel
    processor: Any
    tokenizer: Any
    ends: frozenset[int]
    context: int
    layers: int

    def placed(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What a processor made, on the model's device and in its type."""
        device, dtype = self.model.device, self.model.dtype
        return {name: one.to(device, dtype if one.is_floating_point() else None) for name, one in tensors.items()}


_one_at_a_time = threading.Lock()
"""transformers keeps state of its own while it loads: of two models loaded at once, one loses its tied weights."""


def load(source: ModelSource) -> Loaded:
    """Load what `source` names.

    Raises:
        ConfigError: it cannot be loaded or cannot chat about pictures; the text has the cure.
    """
    source.check()
    with _one_at_a_time:
        processor = _processor(source)
        model = _model(source)
    if module := foreign_code(model, model.config, processor):
        raise ConfigError(f"{source.model!r} brought its own code ({module}), which insightv never runs")
    tokenizer = processor.tokenizer
    text = model.config.get_text_config()
    ends = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = ends if isinstance(ends, list) else [ends]
    limits = [getattr(text, "max_position_embeddings", None), tokenizer.model_max_length]
    context = min((limit for limit in limits if isinstance(limit, int) and limit < 10**9), default=1 << 20)
    known = {end for end in (*ends, tokenizer.eos_token_id) if isinstance(end, int)}
    log.info("loaded %s, revision %s", source.model, getattr(model.config, "_commit_hash", None) or "local")
    return Loaded(model, processor, tokenizer, frozenset(known), context, text.num_hidden_layers)


def _processor(source: ModelSource) -> Any:
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(source.model, revision=source.revision, trust_remote_code=False)
    except ImportError as error:
        name = "torchvision" if "torchvision" in str(error).lower() else getattr(error, "name", None) or "a package"
        raise ConfigError(
            f"the processor of {source.model!r} needs {name}, which is not installed ({_first_line(error)});"
            f" install it, for instance: pip install {name}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"the processor of {source.model!r} cannot be loaded: {_first_line(error)}") from error
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise ConfigError(
            f"{source.model!r} has no image processor: it is not a model for pictures and text, or its"
            " preprocessor_config.json (processor_config.json) is missing; copy that file from the original model"
        )
    if not getattr(processor, "chat_template", None):
        template = getattr(processor.tokenizer, "chat_template", None)
        if not template:
            raise ConfigError(
                f"{source.model!r} has no chat template, so its conversation format is not known; use the chat or"
                " instruct version of the model, or put its chat_template.jinja beside config.json"
            )
        processor.chat_template = template
    return processor


def _model(source: ModelSource) -> PreTrainedModel:
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging as transformers_logging

    device = _device(source)
    dtype = "auto" if source.dtype == "auto" else getattr(torch, source.dtype)
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        loading: Any = AutoModelForImageTextToText.from_pretrained(
            source.model,
            revision=source.revision,
            dtype=dtype,
            attn_implementation=source.attn_implementation,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError) as error:
        hint = ""
        if "Unrecognized configuration class" in str(error):
            hint = "; it is not an image-text-to-text model of transformers"
        elif "safetensors" in str(error):
            hint = "; only safetensors are loaded, never pickles (.bin): convert the weights with save_pretrained()"
        elif "trust_remote_code" in str(error):
            hint = "; it needs code from its own files, which insightv never runs"
        raise ConfigError(f"{source.model!r} cannot be loaded: {_first_line(error)}{hint}") from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    model, report = loading
    if wrong := misfit(report):
        raise ConfigError(f"the weights of {source.model!r} {wrong}")
    if source.dtype == "auto" and device.type == "cpu" and model.num_parameters() <= SMALL:
        model = model.float()
    try:
        loaded: PreTrainedModel = model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"{source.model!r} cannot be put on the device {str(device)!r}: {_first_line(error)}"
        ) from error
    loaded.requires_grad_(False)
    return loaded


def _device(source: ModelSource) -> torch.device:
    try:
        return torch.device(source.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ConfigError(f"device = {source.device!r} is not known; use for instance 'cpu' or 'cuda:0'") from error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
