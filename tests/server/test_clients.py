"""The server as its clients use it: the official openai client, LangChain, over real HTTP and a fake model server."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator

import openai
import pytest

from insightv import Reasoner
from tests.server.serving import Served, chat
from tests.servers.fake_openai import FakeServer


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture(scope="module")
def served(fake: FakeServer) -> Iterator[Served]:
    with Served(lambda: Reasoner.of("openai/fake", base_url=fake.base_url)) as served:
        yield served


def test_the_openai_client(served: Served) -> None:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        reply = client.chat.completions.create(**chat())
        names = [model.id for model in client.models.list()]
        assert client.models.retrieve("insightv-reason").id == "insightv-reason"
        with pytest.raises(openai.NotFoundError, match="insightv-reason"):
            client.models.retrieve("gpt-4")
    assert names == ["insightv", "insightv-reason", "insightv-summary"]
    (choice,) = reply.choices
    assert choice.message.content == "The answer is 7."
    assert choice.finish_reason == "stop"
    reasoning = choice.message.reasoning_content
    assert reasoning.count("### ") == 3
    assert reasoning.endswith("### Conclude\nSo the answer is 7.")
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0
    assert reply.usage.completion_tokens_details is not None
    assert 0 < (reply.usage.completion_tokens_details.reasoning_tokens or 0) < reply.usage.completion_tokens
    own = reply.insightv
    assert (own["followed"], own["flags"], own["path"]) == (True, [], {"status": "ok", "code": None, "steps": 3})


def test_the_openai_client_streams(served: Served) -> None:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        whole = client.chat.completions.create(**chat())
        chunks = list(client.chat.completions.create(**chat(), stream=True, stream_options={"include_usage": True}))
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    reasoning = [getattr(delta, "reasoning_content", None) for delta in deltas]
    content = [delta.content for delta in deltas]
    message = whole.choices[0].message
    assert "".join(filter(None, reasoning)) == message.reasoning_content
    assert "".join(filter(None, content)) == message.content
    last_thought = max(place for place, text in enumerate(reasoning) if text)
    assert last_thought < min(place for place, text in enumerate(content) if text)
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1
    *steps, path, answer = [chunk.insightv for chunk in chunks if getattr(chunk, "insightv", None)]
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert path == {"path": {"status": "ok", "code": None, "steps": 3}}
    assert answer["followed"] is True


def test_the_async_openai_client_at_once(served: Served) -> None:
    async def ask(client: openai.AsyncOpenAI, number: int) -> str | None:
        text = f"What is 0 + {number}? [truth={number}]"
        if number % 2:
            stream = await client.chat.completions.create(**chat(text), stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        content: str | None = (await client.chat.completions.create(**chat(text))).choices[0].message.content
        return content

    async def run() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(20)))

    assert asyncio.run(run()) == [f"The answer is {number}." for number in range(20)]


def test_each_agent_alone(served: Served, fake: FakeServer) -> None:
    def ask(model: str) -> tuple[str | None, str, int]:
        before = len(fake.log())
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
            message = client.chat.completions.create(**{**chat(), "model": model}).choices[0].message
        return message.content, message.reasoning_content, len(fake.log()) - before

    content, reasoning, calls = ask("insightv-reason")
    assert (content, calls) == ("So the answer is 7.", 1)
    assert "### Conclude" in reasoning
    assert ask("insightv-summary") == ("The answer is 7.", "", 1)
    with pytest.raises(openai.NotFoundError, match="insightv-reason"):
        ask("gpt-4")


@pytest.mark.parametrize("model", ["insightv", "insightv-reason", "insightv-summary"])
def test_a_stream_says_what_the_whole_reply_says(served: Served, model: str) -> None:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        whole = client.chat.completions.create(**{**chat(), "model": model}).choices[0].message
        chunks = list(client.chat.completions.create(**{**chat(), "model": model}, stream=True))
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == whole.content
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == whole.reasoning_content


def test_a_path_that_a_limit_stops_says_that_its_cost_is_not_known(served: Served) -> None:
    asked = chat("What is 3 + 4? [truth=7] [steps=40]", insightv={"max_steps": 2})
    status, form = served.form("POST", "/v1/chat/completions", asked)
    assert (status, form["insightv"]["path"]["code"]) == (200, "step_limit")
    assert form["insightv"]["flags"] == ["path_cut", "usage_unknown"]


def test_langchain(served: Served) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, of no concern here
        import langchain_openai

        model = langchain_openai.ChatOpenAI(
            model="insightv", base_url=f"{served.url}/v1", api_key=lambda: "none", max_retries=0, temperature=0.3
        )
        (message,) = chat()["messages"]
        assert model.invoke([message]).content == "The answer is 7."
        assert "".join(str(piece.content) for piece in model.stream([message])) == "The answer is 7."


def test_several_paths_are_reported_with_their_agreement(served: Served) -> None:
    status, form = served.form("POST", "/v1/chat/completions", chat(insightv={"paths": 3}))
    assert status == 200
    assert form["insightv"]["agreement"] == 1.0
    assert form["insightv"]["paths"] == 3
    assert form["choices"][0]["message"]["reasoning_content"].count("### Path 3: ") == 3


def test_a_conversation_is_asked_as_one_question(served: Served, fake: FakeServer) -> None:
    turns = [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "What is this?"},
        {"role": "assistant", "content": "A chart."},
        {"role": "user", "content": "And its highest bar? [truth=B]"},
    ]
    status, form = served.form("POST", "/v1/chat/completions", {"model": "insightv", "messages": turns})
    assert (status, form["choices"][0]["message"]["content"]) == (200, "The answer is B.")
