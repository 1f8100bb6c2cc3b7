"""The embedded model: a LLaVA-NeXT of a few million parameters, its tokenizer, processor and chat format.

Nothing here is custom: a CLIP vision tower and a Llama text model from their ordinary configurations, so that
transformers (and servers that know LLaVA-NeXT) load the saved directory as any other model.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insightv.tiny import ask, world
from tools.tiny import tell

if TYPE_CHECKING:
    from collections.abc import Iterator

SIDE = 84
"""Side of the picture that the vision tower sees, in pixels."""
PATCH = 14
"""Side of one of its patches: 36 patches, and 36 + 36 + 6 = 78 image tokens (whole picture, its one tile, row ends)."""
MODES = ("<steps>", "<reason>", "<judge>", "<direct>")
"""Tokens that stand for the system prompts of the library."""
SPECIAL = ("<pad>", "<eos>", "<image>", "<bot>", "<next>", "<final>", *MODES)
"""Tokens that are no text: `<next>` and `<final>` stand for the later user turns of a chain."""
PIECES = (
    '{"title": "',
    '", "content": "',
    '", "action": "continue"}',
    '", "action": "summary"}',
    '{"answer": "',
    '"}',
    "<thoughts>\n### ",
    "\n### ",
    "\n</thoughts>",
)
"""Pieces of the reply formats that are one token each, which keeps replies short and well formed."""
_WORD = r" ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]|\s+"


@dataclass(frozen=True)
class Shape:
    """Widths and depths. The vision tower has one layer more than it uses (LLaVA reads the last but one)."""

    vision_width: int = 192
    vision_layers: int = 5
    text_width: int = 256
    text_layers: int = 4
    text_inner: int = 704
    head: int = 64


def _corpus(n: int) -> Iterator[str]:
    rng = random.Random("corpus")
    for item in world.make_questions(n, 0, "train"):
        chart, kind, asked = item.meta["chart"], item.meta["kind"], item.meta["ask"]
        yield item.question
        for title, text in tell.steps(chart, kind, asked, rng):
            yield from (title, text)
    yield from ("QUESTION: ", "\n\nREASONING:\n", "Describe the chart.", "Answer the question.") * 20
    yield from [" ".join([*world.LETTERS, *world.COLUMNS]), " ".join(map(str, range(10)))] * 50
    yield ask.__doc__ or ""


def build_tokenizer(vocabulary: int = 576) -> Any:
    """A byte-level BPE trained on the world's own texts; each digit is a token, and any text can be written."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(PIECES),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_corpus(4000), trainer)
    core.add_tokens([AddedToken(piece, normalized=False) for piece in PIECES])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        extra_special_tokens={"image_token": "<image>"},
        additional_special_tokens=[token for token in SPECIAL if token not in ("<pad>", "<eos>", "<image>")],
        chat_template=chat_template(),
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        padding_side="left",
    )


def chat_template() -> str:
    """The chat format as a Jinja template (`template.jinja`)."""
    return (Path(__file__).parent / "template.jinja").read_text("utf-8").strip()


def build_processor(tokenizer: Any) -> Any:
    """The LLaVA-NeXT processor around `tokenizer`, for pictures of `SIDE` pixels in one tile."""
    from transformers import LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_grid_pinpoints=[[SIDE, SIDE]],
    )
    return LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template(),
    )


def build_model(tokenizer: Any, shape: Shape | None = None, seed: int = 0) -> Any:
    """An untrained model of `shape` (float32) for `tokenizer`."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextForConditionalGeneration

    shape = shape or Shape()
    vision = CLIPVisionConfig(
        hidden_size=shape.vision_width,
        intermediate_size=4 * shape.vision_width,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_width // shape.head,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=shape.vision_width,
        initializer_range=0.04,
    )
    text = LlamaConfig(
        vocab_size=(len(tokenizer) + 63) // 64 * 64,
        hidden_size=shape.text_width,
        intermediate_size=shape.text_inner,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=shape.text_width // shape.head,
        num_key_value_heads=shape.text_width // shape.head,
        head_dim=shape.head,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=[[SIDE, SIDE]],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(SIDE // PATCH) ** 2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = LlavaNextForConditionalGeneration(config)
    _start_places(model.model.vision_tower, shape.vision_width)
    _look_back(model.model.language_model, shape.head)
    for linear in (model.model.multi_modal_projector.linear_1, model.model.multi_modal_projector.linear_2):
        torch.nn.init.xavier_uniform_(linear.weight)
    model.generation_config.update(
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


def _start_places(tower: Any, width: int) -> None:
    """Start the places of the patches as waves over rows and columns: from noise the model takes far longer to read."""
    import torch

    side, quarter = SIDE // PATCH, width // 4
    waves = torch.arange(side)[:, None] / 20 ** (torch.arange(quarter) / quarter)
    line = torch.cat([waves.sin(), waves.cos()], dim=1)
    grid = torch.cat([line.repeat_interleave(side, 0), line.repeat(side, 1)], dim=1)
    with torch.no_grad():
        tower.embeddings.position_embedding.weight[1:] = 0.5 * grid


def _look_back(language: Any, head: int) -> None:
    """Start two heads of the first layer as ones that look at the token before, and at the one before that.

    To find "B 3" again after "B" a model needs such a head and a second one behind it. From noise this one had not
    found the pair after thousands of steps; with the first half given it finds the second within 150.
    """
    import torch

    half, constant, sharpness, slowest = head // 2, 0.15, 1.9, 0.05
    speeds = 10000.0 ** (-torch.arange(half) / half)
    used = sharpness * (speeds > slowest)
    attention = language.layers[0].self_attn
    with torch.no_grad():
        # The same number in every token: what a query and a key without content are made of.
        language.embed_tokens.weight[:, 0] = constant
        for number, distance in enumerate((1, 2)):
            rows = slice(number * head, (number + 1) * head)
            for weight in (attention.q_proj.weight, attention.k_proj.weight):
                weight[rows] = 0
            key, query = attention.k_proj.weight[rows, 0], attention.q_proj.weight[rows, 0]
            key[:half] = used
            # Turned back by `distance`, the query meets the key of the token that stands so far before.
            query[:half], query[half:] = used * torch.cos(distance * speeds), -used * torch.sin(distance * speeds)


def save(model: Any, processor: Any, folder: Path) -> None:
    """Write a complete model directory: bfloat16 weights, configurations, tokenizer, processor, chat format."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().to(torch.bfloat16) for name, value in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = "bfloat16"
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    processor.save_pretrained(folder)
