"""May this model be run by `Chains`? Tried out on a small conversation when it is loaded, not known from a list.

Asked are: do our tokens equal those of the model's own processor, and does computing in pieces, at explicit positions
beside a row of another length, give the logits of one plain pass?
"""

from __future__ import annotations

import logging

import torch

from insightv.backends.hf.kv_slab import Slab
from insightv.backends.hf.load import Loaded
from insightv.backends.hf.plain_generate import model_inputs
from insightv.backends.hf.prompt import Prompter
from insightv.inputs.image_pixels import encoded
from insightv.records import Message, Picture

log = logging.getLogger(__name__)
_FINE = {torch.float32: 1e-3, torch.float64: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def why_not_chains(loaded: Loaded, prompter: Prompter) -> str | None:
    """The reason why plain `generate` must be used, None where there is none."""
    config = loaded.model.config.get_text_config()
    if getattr(config, "_attn_implementation", None) not in ("sdpa", "eager"):
        return f"its attention is {config._attn_implementation!r}, and only sdpa and eager take a mask per row"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or getattr(config, "sliding_window", None):
        return f"its layers are not all of full attention ({', '.join(sorted(map(str, kinds)))})"
    if any(hasattr(part, "get_rope_index") for part in loaded.model.modules()):
        return "its positions are not one number per token"
    try:
        return _tried(loaded, prompter)
    except Exception as error:  # any failure means the same here: this model is not run so
        log.debug("the trial of %s failed", type(loaded.model).__name__, exc_info=True)
        return f"the trial on a small conversation failed ({type(error).__name__}: {error})"


def _tried(loaded: Loaded, prompter: Prompter) -> str | None:
    messages = [Message(role="user", content=(_picture(), "What is to be seen here?"))]
    prompt = prompter.prompt(messages)
    inputs = model_inputs(loaded, [messages])
    if inputs["input_ids"][0].tolist() != prompt.tokens:
        return "its processor writes pictures into the text in a way of its own"
    model = loaded.model
    extras = loaded.placed({k: v for k, v in inputs.items() if k not in ("input_ids", "attention_mask")})
    ids = inputs["input_ids"].to(model.device)
    expected = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **extras).logits[0, -2:]
    slab = Slab(loaded.layers, loaded.context)
    tokens, cut = prompt.tokens, prompt.spans[0][1]
    other = [tokens[-1]] * 3
    slab.step(model, [1], [tokens[:cut]], [0], extras)
    slab.step(model, [0, 1], [other, tokens[cut:-2] or [tokens[cut]]], [0, cut])
    found = [
        slab.step(model, [0, 1], [[other[0]], [tokens[at]]], [3 + i, at])[1]
        for i, at in enumerate((len(tokens) - 2, len(tokens) - 1))
    ]
    expected, got = expected.float(), torch.stack(found).float()
    apart = float((got - expected).norm() / expected.std(-1, keepdim=True).expand_as(expected).norm())
    if not apart <= _FINE.get(model.dtype, 1e-3):
        return f"computing its prompt in pieces does not give what one pass gives (off by {apart:.2g})"
    return None


def _picture() -> Picture:
    from PIL import Image

    pixels = bytes(value for y in range(64) for x in range(96) for value in (2 * x, 3 * y, x * y % 256))
    return encoded(Image.frombytes("RGB", (96, 64), pixels), "PNG")
