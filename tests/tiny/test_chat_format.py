"""The tokenizer, the processor and the chat format, as built and as saved beside the weights."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image

from insightv.backends.model_folder import embedded_weights
from insightv.tiny import world
from tools.tiny import batches, model

IMAGE = {"type": "image"}
STEP = '{"title": "Read the values", "content": "A 5, B 3.", "action": "continue"}'
LAST = '{"title": "Answer", "content": "The answer is 5.", "action": "summary"}'


@pytest.fixture(scope="module", params=["built", "saved"])
def processor(request: pytest.FixtureRequest) -> Any:
    if request.param == "built":
        return model.build_processor(model.build_tokenizer())
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(embedded_weights("teacher"))


def render(processor: Any, messages: list[dict[str, Any]], prompt: bool = True) -> str:
    return str(processor.apply_chat_template(messages, add_generation_prompt=prompt))


def say(role: str, *content: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    return {"role": role, "content": parts}


@pytest.mark.parametrize(
    ("system", "mode"),
    [
        ('Reply with {"title": ..., "content": ..., "action": ...} and <thoughts>', "<steps>"),
        ("JUDGE what stands between <thoughts> and </thoughts>.", "<judge>"),
        ("You are given <thoughts>; judge them.", "<judge>"),
        ("Write <thoughts> first.", "<reason>"),
        ("You are helpful.", "<direct>"),
        (None, "<direct>"),
    ],
)
@pytest.mark.parametrize("blocks", [False, True])
def test_the_system_prompt_becomes_one_token(processor: Any, system: str | None, mode: str, blocks: bool) -> None:
    messages: list[dict[str, Any]] = [say("user", IMAGE, "How many?")]
    if system is not None:
        messages.insert(0, say("system", system) if blocks else {"role": "system", "content": system})
    assert render(processor, messages) == f"<image>{mode}How many?<bot>"


def test_a_conversation_without_a_picture(processor: Any) -> None:
    assert render(processor, [{"role": "user", "content": "Hello?"}]) == "<direct>Hello?<bot>"


def test_the_picture_comes_first(processor: Any) -> None:
    assert render(processor, [say("user", "How many?", IMAGE)]) == "<image><direct>How many?<bot>"


def test_every_call_of_a_chain_extends_the_one_before(processor: Any) -> None:
    messages = [say("system", 'Use "action".'), say("user", IMAGE, "What is A?")]
    chart = next(world.make_questions(1, 0, "heldout")).image
    texts, ids = [], []
    for reply, turn in ((STEP, "The next step, please."), (LAST, 'Now {"answer": ...}'), ('{"answer": "5"}', "")):
        texts.append(render(processor, messages))
        ids.append(processor(images=chart, text=texts[-1])["input_ids"][0])
        messages += [say("assistant", reply), say("user", turn)]
    assert texts[2] == f"<image><steps>What is A?<bot>{STEP}<eos><next><bot>{LAST}<eos><final><bot>"
    for (first, then), (few, more), reply in zip(pairwise(texts), pairwise(ids), (STEP, LAST), strict=True):
        assert then.startswith(first + reply + "<eos>")
        replied = processor.tokenizer(reply + "<eos>", add_special_tokens=False)["input_ids"]
        assert list(more[: len(few) + len(replied)]) == [*few, *replied]


def test_a_model_alone_is_shown_its_question_and_its_own_path(processor: Any) -> None:
    from insightv.agents.baselines import answer_turn, direct_cot_messages, multi_turn_messages
    from insightv.records import Message, Question
    from insightv.train.data.rows import trl_messages

    def rendered(messages: Sequence[Message]) -> str:
        return render(processor, trl_messages(messages))

    asked = Question(id="q", question="What is A?")
    opening = multi_turn_messages(asked)
    path = "<thoughts>\n### Read\nA 5.\n</thoughts>"
    assert rendered(direct_cot_messages(asked)) == rendered(opening) == "<reason>What is A?<bot>"
    assert rendered(answer_turn(opening, path)) == f"<reason>What is A?<bot>{path}<eos><next><bot>"


def test_training_texts_are_the_chat_format(processor: Any) -> None:
    """What the recipe trains on is, text for text, what a chain of calls renders to."""
    messages = [
        say("system", '"action"'),
        say("user", IMAGE, "What is A?"),
        say("assistant", STEP),
        say("user", "Go on."),
    ]
    messages += [say("assistant", LAST), say("user", '"answer"?'), say("assistant", '{"answer": "5"}')]
    steps = [(step["title"], step["content"]) for step in map(json.loads, (STEP, LAST))]
    assert render(processor, messages, prompt=False) == "<image>" + batches.steps_text("What is A?", steps, "5")


@pytest.mark.parametrize(
    "text", [STEP, "Ünïcode, 日本語 \n\t 🙂", "<thoughts>\n### A\nB 5.\n</thoughts>", '{"a": [1, 2]}']
)
def test_any_text_can_be_written(processor: Any, text: str) -> None:
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert processor.tokenizer.decode(ids) == text


def test_digits_stand_alone(processor: Any) -> None:
    assert len(processor.tokenizer(" 1234", add_special_tokens=False)["input_ids"]) == 4


def test_a_picture_is_78_tokens_and_seen_as_in_training(processor: Any) -> None:
    chart = next(world.make_questions(1, 0, "heldout")).image
    inputs = processor(images=chart, text="<image><direct>x<bot>", return_tensors="np")
    image = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert (inputs["input_ids"] == image).sum() == batches.IMAGE_TOKENS
    for tile in inputs["pixel_values"][0]:
        assert np.abs(tile - batches.pixels_of(chart)).max() < 1e-5


def test_the_recipes_forward_pass_is_the_models_own() -> None:
    """Conversations that share a picture cost what they cost each for itself in the ordinary forward pass."""
    import torch

    from tools.tiny import fitting

    tokenizer = model.build_tokenizer()
    net = model.build_model(tokenizer, model.Shape(64, 2, 64, 2, 128, 32)).eval()
    item = next(world.make_questions(1, 0, "train"))
    pixels = batches.pixels_of(item.image)
    texts = ["<direct>What is A?<bot>5<eos>", "<reason>What is B?<bot><thoughts>B is 3.<eos>"]
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    with torch.no_grad():
        packed, _ = fitting.forward(net, batches.pack(tokenizer, pixels[None], [rows]))
        losses, counts = [], []
        for row in rows:
            single = batches.pack(tokenizer, pixels[None], [[row]])
            out = net(
                input_ids=torch.from_numpy(single.ids),
                pixel_values=torch.from_numpy(np.stack([pixels, pixels]))[None],
                image_sizes=torch.tensor([Image.new("RGB", (336, 336)).size]),
                labels=torch.from_numpy(single.labels),
            )
            losses.append(float(out.loss))
            counts.append(int((single.labels >= 0).sum()))
    assert float(packed) == pytest.approx(np.average(losses, weights=counts), rel=1e-4)


def test_two_heads_start_by_looking_back() -> None:
    """Before any training they attend to the token before, and to the one before that."""
    import torch

    tokenizer = model.build_tokenizer()
    language = model.build_model(tokenizer).model.language_model
    language.set_attn_implementation("eager")
    ids = torch.tensor([tokenizer("A 5, B 3, C 7. A 5. C 7.", add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        first = language(input_ids=ids, output_attentions=True).attentions[0][0]
    for head, distance in ((0, 1), (1, 2)):
        places = first[head].argmax(-1)[distance + 1 :]
        assert places.tolist() == [place - distance for place in range(distance + 1, ids.shape[1])]


def test_importing_the_room_is_light() -> None:
    import subprocess
    import sys

    code = (
        "import sys, insightv.tiny, insightv.tiny.chart_steps;"
        "print({'torch', 'PIL', 'numpy', 'transformers'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
