"""A small random Qwen2.5-VL and its processor for pictures (the whole one needs torchvision for its videos)."""

from __future__ import annotations

from typing import Any

from transformers import Qwen2_5_VLProcessor
from transformers.processing_utils import ProcessorMixin

from tests.backends.tiny_vlm import CHARACTERS

SPECIAL = ("<pad>", "<eos>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{%- for m in messages -%}<|{{ m.role }}|>{%- for p in m.content -%}"
    "{%- if p.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>{%- else -%}{{ p.text }}{%- endif -%}"
    "{%- endfor -%}<eos>{%- endfor -%}{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)


class PictureProcessor(Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor without the part that reads videos."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def build_processor() -> Any:
    """Tokens are single characters; pictures have 8 x 8 pixels to a patch and 2 x 2 patches to a token."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    names = [*SPECIAL, *ROLES, "<unk>", *CHARACTERS]
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([*SPECIAL, *ROLES])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    images = Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    )
    return PictureProcessor(images, tokenizer, chat_template=TEMPLATE)


def build_model(processor: Any, seed: int = 0) -> Any:
    """Random weights in float32."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    find = processor.tokenizer.convert_tokens_to_ids
    torch.manual_seed(seed)
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            vision_config={
                "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64,
                "patch_size": 8, "window_size": 32, "fullatt_block_indexes": [1],
            },
            text_config={
                "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "vocab_size": len(processor.tokenizer), "max_position_embeddings": 512,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
                "bos_token_id": None, "eos_token_id": find("<eos>"), "pad_token_id": find("<pad>"),
            },
            image_token_id=find("<|image_pad|>"), video_token_id=find("<|video_pad|>"),
            vision_start_token_id=find("<|vision_start|>"), vision_end_token_id=find("<|vision_end|>"),
        )
    )  # fmt: skip
