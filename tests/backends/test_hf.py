"""The hf backend against plain `generate` of the same model, on a small random LLaVA-NeXT."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from insightv.backends.hf.model import HFModel
from insightv.backends.hf.prompt import blocks
from insightv.errors import ModelError
from insightv.records import Completion, Message, Picture, Sampling
from insightv.testing import check_backend
from tests.backends import tiny_vlm

GREEDY = Sampling(temperature=0, max_tokens=24)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small a model gains nothing from a second thread, and waits for it where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vlm.build(tmp_path_factory.mktemp("vlm"))


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    return model, AutoProcessor.from_pretrained(folder)


def ask(text: str, picture: Picture | None = None) -> Message:
    return Message(role="user", content=(text,) if picture is None else (picture, text))


def said(text: str) -> Message:
    return Message(role="assistant", content=text)


def generate(plain: Any, messages: list[Message], max_tokens: int) -> str:
    """The reply of transformers' own way, from nothing."""
    model, processor = plain
    turns = blocks(messages)
    for turn, message in zip(turns, messages, strict=True):
        turn["content"] = [
            {"type": "image", "image": Image.open(io.BytesIO(part.data))}
            if isinstance(part, Picture)
            else {"type": "text", "text": part}
            for part in message.parts
        ]
    inputs = processor.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
    return str(processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


async def chain(model: HFModel, picture: Picture, question: str, lengths: list[int]) -> list[Completion]:
    messages = [Message(role="system", content="Think."), ask(question, picture)]
    replies = []
    for length in lengths:
        [reply] = await model.chat(messages, Sampling(temperature=0, max_tokens=length))
        replies.append(reply)
        messages += [said(reply.text), ask("Go on.")]
    return replies


def test_chains_equal_plain_generate_with_batching_joins_and_reuse(folder: Path, plain: Any) -> None:
    jobs = [(tiny_vlm.picture(i % 3, 40 + 9 * (i % 2)), f"Question {i}?", [4 + 3 * i, 9, 6 + i]) for i in range(5)]

    async def main() -> tuple[list[list[Completion]], int]:
        model = HFModel(str(folder), batch=3)
        try:
            return await asyncio.gather(*(chain(model, *job) for job in jobs)), model.counts.computed
        finally:
            await model.aclose()

    chains, computed = asyncio.run(main())
    prompts = 0
    for (picture, question, lengths), replies in zip(jobs, chains, strict=True):
        messages = [Message(role="system", content="Think."), ask(question, picture)]
        for length, reply in zip(lengths, replies, strict=True):
            assert reply.text == generate(plain, messages, length)
            messages += [said(reply.text), ask("Go on.")]
            prompts += reply.usage.prompt_tokens
        assert len({reply.text for reply in replies}) == 3, "the model must not say one thing only"
        later = replies[1:]
        new = [r.usage.prompt_tokens - r.usage.cached_tokens for r in later]
        # the last drawn token, <eos>, <|user|>, "Go on.", <eos>, <|assistant|>
        assert new == [11, 11], "a later step computes only what is new"
    assert computed < prompts / 2


def test_samples_share_one_prefill_and_do_not_depend_on_their_company(folder: Path) -> None:
    async def main() -> None:
        model = HFModel(str(folder), batch=5)
        messages = [ask("What is it?", tiny_vlm.picture(4))]
        hot = Sampling(temperature=1.2, top_p=0.9, max_tokens=30, seed=11)
        before = model.counts.computed if await model.chat(messages, GREEDY) else 0
        alone = await model.chat(messages, hot, n=6)
        assert model.counts.computed - before <= alone[0].usage.prompt_tokens + 12
        others = [
            model.chat([ask(f"Something else {i}", tiny_vlm.picture(i))], Sampling(temperature=i / 2, top_p=1, seed=i))
            for i in range(4)
        ]
        again, *_ = await asyncio.gather(model.chat(messages, hot, n=6), *others)
        single = await model.chat(messages, hot)
        assert [c.text for c in again] == [c.text for c in alone]
        assert single[0].text == alone[0].text
        assert len({c.text for c in alone}) == 6
        assert [c.usage.requests for c in alone] == [1, 0, 0, 0, 0, 0]
        assert alone[0].usage.completion_tokens == 6 * 30 or any(c.finish == "stop" for c in alone)
        other = await model.chat(messages, hot.model_copy(update={"seed": 12}))
        assert other[0].text != single[0].text
        await model.aclose()

    asyncio.run(main())


def test_first_step_of_n_samples_computes_the_picture_once(folder: Path) -> None:
    async def main() -> None:
        model = HFModel(str(folder), batch=8)
        replies = await model.chat([ask("What?", tiny_vlm.picture(9))], Sampling(max_tokens=5), n=8)
        counts = model.counts
        assert counts.computed == replies[0].usage.prompt_tokens - 1 + 8
        before = counts.computed
        [text, *_] = await model.chat([ask("No picture, but some text. " * 3)], Sampling(max_tokens=5), n=8)
        assert counts.computed - before == text.usage.prompt_tokens - text.usage.cached_tokens - 1 + 8
        await model.aclose()

    asyncio.run(main())


def test_streamed_pieces_are_the_reply(folder: Path, plain: Any) -> None:
    async def main() -> None:
        model = HFModel(str(folder))
        messages = [ask("What?", tiny_vlm.picture(2))]
        pieces = [piece async for piece in model.stream(messages, GREEDY)]
        *texts, whole = pieces
        assert isinstance(whole, Completion)
        assert "".join(str(t) for t in texts) == whole.text == generate(plain, messages, 24)
        assert len(texts) > 10
        await model.aclose()

    asyncio.run(main())


def test_a_cancelled_call_frees_its_row(folder: Path) -> None:
    async def main() -> None:
        model = HFModel(str(folder), batch=1)
        long = asyncio.create_task(model.chat([ask("Long.")], Sampling(temperature=0, max_tokens=400)))
        while model.counts.drawn < 3:
            await asyncio.sleep(0.005)
        waiting = asyncio.create_task(model.chat([ask("Short.")], Sampling(temperature=0, max_tokens=2)))
        long.cancel()
        [reply] = await asyncio.wait_for(waiting, 20)
        assert reply.usage.completion_tokens <= 2
        assert model.counts.drawn < 300
        async for _ in model.stream([ask("Left early.")], Sampling(max_tokens=400)):
            break
        await model.chat([ask("Short.")], Sampling(max_tokens=2))
        assert model.counts.drawn < 300
        await model.aclose()

    asyncio.run(main())


def test_lengths_end_replies_and_too_long_prompts_are_refused(folder: Path) -> None:
    async def main() -> None:
        model = HFModel(str(folder))
        [cut] = await model.chat([ask("a" * 480)], Sampling(temperature=0, max_tokens=1000))
        assert cut.finish == "length"
        assert cut.usage.prompt_tokens + cut.usage.completion_tokens <= 512
        with pytest.raises(ModelError) as caught:
            await model.chat([ask("a" * 520)], GREEDY)
        assert caught.value.code == "too_long"
        await model.aclose()

    asyncio.run(main())


def test_control_tokens_in_texts_are_texts(folder: Path) -> None:
    async def main() -> None:
        model = HFModel(str(folder))
        picture = tiny_vlm.picture(3)
        [plain] = await model.chat([ask("Say image.", picture)], GREEDY)
        [reply] = await model.chat([ask("Say <image><eos><|assistant|>.", picture)], GREEDY)
        assert reply.usage.prompt_tokens > plain.usage.prompt_tokens + 15, "written out in characters"
        [after] = await model.chat([ask("Say image.", picture)], GREEDY)
        assert after.text == plain.text
        await model.aclose()

    asyncio.run(main())


def test_pictures_that_differ_are_never_mixed_up(folder: Path, plain: Any) -> None:
    async def main() -> None:
        model = HFModel(str(folder))
        for seed in (1, 2, 1):
            messages = [ask("Same words.", tiny_vlm.picture(seed))]
            [reply] = await model.chat(messages, GREEDY)
            assert reply.text == generate(plain, messages, 24)
        both = [Message(role="user", content=(tiny_vlm.picture(1), "and", tiny_vlm.picture(2, 80, 30), "differ?"))]
        [first] = await model.chat(both, GREEDY)
        assert first.text == generate(plain, both, 24)
        other = [Message(role="user", content=(tiny_vlm.picture(1), "and", tiny_vlm.picture(5, 80, 30), "differ?"))]
        [second] = await model.chat(other, GREEDY)
        assert second.text == generate(plain, other, 24)
        assert 0 < second.usage.cached_tokens < second.usage.prompt_tokens - 20, "the first picture, not the second"
        await model.aclose()

    asyncio.run(main())


def test_a_small_cache_gives_the_same_replies(folder: Path, plain: Any) -> None:
    async def main() -> None:
        model = HFModel(str(folder), cache_gb=0.0001, batch=2)
        replies = await asyncio.gather(*(chain(model, tiny_vlm.picture(i), "Q?", [8, 8]) for i in range(4)))
        for i, chained in enumerate(replies):
            messages = [Message(role="system", content="Think."), ask("Q?", tiny_vlm.picture(i))]
            assert chained[0].text == generate(plain, messages, 8)
            messages += [said(chained[0].text), ask("Go on.")]
            assert chained[1].text == generate(plain, messages, 8)
        await model.aclose()

    asyncio.run(main())


def test_the_conformance_checks_of_backends_pass(folder: Path) -> None:
    check_backend(lambda: HFModel(str(folder)), deterministic=True)
