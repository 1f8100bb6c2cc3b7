"""The sets go into TRL's own trainer as they are: a real processor, its collator, one step of a small model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from insightv.assess.bands import AssessedQuestion
from insightv.train.data.baseline_sets import DirectSet, MultiTurnSet
from insightv.train.data.card import Origin
from insightv.train.data.export import export_set
from insightv.train.data.sets import ReasonSet, RowSet, SummarySet
from tests.train.test_baseline_sets import ask

from .world import mixed, picture, prompt, render, run_of

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ' ' }}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{{ ' </s> ' }}{% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
)


def small_model() -> tuple[Any, Any]:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessorPil,
        LlavaNextProcessor,
        PreTrainedTokenizerFast,
    )

    words = "<unk> <pad> </s> <image> system user assistant the bar is at 4 QUESTION REASONING <thoughts> </thoughts>"
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words.split())}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    make_tokenizer: Any = PreTrainedTokenizerFast
    tokenizer = make_tokenizer(tokenizer_object=raw, unk_token="<unk>", pad_token="<pad>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=[[28, 28]]
    )
    make: Any = LlavaNextProcessor
    processor = make(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    size: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(image_size=28, patch_size=14, projection_dim=16, **size),
        text_config=LlamaConfig(vocab_size=len(tokenizer), **size),
        image_token_index=3,
        image_grid_pinpoints=[[28, 28]],
        vision_feature_layer=-1,
    )
    return LlavaNextForConditionalGeneration(config), processor


SETS: list[RowSet] = [
    ReasonSet(prompt=prompt),
    SummarySet(render=render, total=12),
    DirectSet(ReasonSet(prompt=prompt)),
    MultiTurnSet(ReasonSet(prompt=prompt), ask),
]


@pytest.mark.parametrize("spec", SETS, ids=lambda spec: spec.name)
def test_trl_trains_on_the_set_with_its_images_and_on_the_completion_only(spec: RowSet, tmp_path: Path) -> None:
    def some(number: int) -> AssessedQuestion:
        return mixed(number, images=[picture(number + i) for i in range(1 + number % 2)])

    export_set(spec, run_of(6, some), tmp_path / "set", Origin())
    data = load_dataset(str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and trl, about their own insides
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        model, processor = small_model()
        settings = SFTConfig(
            str(tmp_path / "out"),
            max_length=None,
            max_steps=1,
            per_device_train_batch_size=4,
            use_cpu=True,
            bf16=False,
            report_to="none",
            save_strategy="no",
            gradient_checkpointing=False,
            disable_tqdm=True,
        )
        trainer = SFTTrainer(model, args=settings, train_dataset=data, processing_class=processor)
        batch = next(iter(trainer.get_train_dataloader()))
        loss = trainer.train().training_loss
    places = (batch["input_ids"] == 3).sum(1)
    assert batch["pixel_values"].shape[0] >= 4
    assert (places > 0).all()
    told = processor.batch_decode([labels[labels != -100] for labels in batch["labels"]])
    for text in told:
        assert "user" not in text
    begins = ["path" if text.startswith("<thoughts>") else text.split()[0] for text in told]
    ends = [text.removesuffix(" </s>").split()[-1] for text in told]
    assert begins == {"reason": ["path"] * 4, "summary": ["4"] * 4, "direct": ["path"] * 4}.get(spec.name, begins)
    assert ends == {"reason": ["</thoughts>"] * 4, "summary": ["4"] * 4, "direct": ["4"] * 4}.get(spec.name, ends)
    if spec.name == "multi-turn":  # each row's own reply, also where the prompt holds the first turn's
        assert {*zip(begins, ends, strict=True)} == {("path", "</thoughts>"), ("4", "4")}
    assert loss > 0
