"""A small random LLaVA-NeXT with everything a real model directory has.

Its tokens are single characters, so that any reply it can write is tokenised again as it was drawn, and its weights are
large enough to make it write varied nonsense.
"""

from __future__ import annotations

import io
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from insightv.records import Picture

SIDE, PATCH = 32, 8
TEMPLATE = (
    "{%- for m in messages -%}<|{{ m.role }}|>{%- for p in m.content -%}"
    "{%- if p.type == 'image' -%}<image>{%- else -%}{{ p.text }}{%- endif -%}{%- endfor -%}<eos>{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;!?\"'{}[]()<>|/_-+=\n"
SPECIAL = ("<pad>", "<eos>", "<image>", "<|system|>", "<|user|>", "<|assistant|>")


def picture(seed: int = 0, width: int = 40, height: int = 30) -> Picture:
    """A small PNG, another one for each seed."""
    image = Image.new("RGB", (width, height), (255, 255, 255 - seed % 100))
    ImageDraw.Draw(image).rectangle((3 + seed % 7, 4, 20, 12 + seed % 11), fill=(30 * seed % 256, 90, 200))
    file = io.BytesIO()
    image.save(file, "PNG")
    data = file.getvalue()
    return Picture(data=data, mime="image/png", sha256=sha256(data).hexdigest(), width=width, height=height)


def build_processor() -> Any:
    """The LLaVA-NeXT processor with a tokenizer of single characters."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlavaNextProcessor, PreTrainedTokenizerFast
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    names = [*SPECIAL, "<unk>", *CHARACTERS]
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=512,
        padding_side="left",
    )
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_grid_pinpoints=[[SIDE, SIDE], [SIDE, 2 * SIDE]],
    )
    return LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def build_model(processor: Any, seed: int = 0, window: int | None = None) -> Any:
    """Random weights in float32; with `window` the text model has sliding attention."""
    import torch
    from transformers import CLIPVisionConfig, LlavaNextConfig, LlavaNextForConditionalGeneration, MistralConfig

    tokenizer = processor.tokenizer
    torch.manual_seed(seed)
    model = LlavaNextForConditionalGeneration(
        LlavaNextConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=SIDE,
                patch_size=PATCH,
                projection_dim=32,
            ),
            text_config=MistralConfig(
                sliding_window=window,
                vocab_size=len(tokenizer),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=16,
                max_position_embeddings=512,
                tie_word_embeddings=False,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            ),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            image_grid_pinpoints=[[SIDE, SIDE], [SIDE, 2 * SIDE]],
            vision_feature_layer=-1,
        )
    )
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 1.3 / weight.shape[-1] ** 0.5)
        model.lm_head.weight[:7] -= 10 * model.lm_head.weight[:7]  # nonsense, but of text
        model.lm_head.weight[:7] *= 0.01
    model.generation_config.update(
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model.eval()


def build(folder: Path, seed: int = 0, window: int | None = None) -> Path:
    """Write a whole model directory."""
    processor = build_processor()
    build_model(processor, seed, window).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
