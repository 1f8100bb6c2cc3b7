"""The work that is measured: questions with a picture each, and what the model server says to every request of them.

A reply depends on question, path and step alone, so that every client and every order has the same work to do: 4 paths
of 2 to 6 steps, a final answer, a check for each answer that differs (62 % of them), one scoring call per question.
"""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

PATHS = 4
IMAGE_TOKENS = 256
IMAGE = "data:image/"
_WORDS = (
    "the of and to in that is with as for on are this by an be from which at it left right upper lower bar line chart "
    "label axis colour shade figure person table window street sign roof tree harbour boat bridge cloud shadow wall "
    "seems shows reaches crosses holds carries meets follows bears marks above below beside between behind around near "
    "therefore however first next then also again still clearly probably roughly exactly almost only never always"
)
_PEOPLE = ("painter", "fisher", "baker", "tailor", "farmer", "sailor", "miller", "potter", "weaver", "carter")
_THINGS = ("kettle", "ladder", "basket", "lantern", "barrel", "bucket", "wagon", "saddle", "violin", "hammer")
_PLACES = ("orchard", "stable", "chapel", "quarry", "meadow", "tavern", "cellar", "garden", "market", "ferry")
_MARK = re.compile(r"\(item (\d+) way (\d+)\)")
_ITEM = re.compile(r"\(item (\d+)\)")
_COUNT = re.compile(r"There are (\d+) paths")
_COMMON = 0.56
_RIGHT = 0.75


def _sentences(number: int) -> list[str]:
    rng, words = random.Random(5), _WORDS.split()
    return [" ".join(rng.choices(words, k=rng.randint(12, 20))).capitalize() + "." for _ in range(number)]


_SENTENCES = _sentences(509)


def draw(*parts: int | str) -> float:
    """A number from 0 to 1 that depends on the parts alone."""
    return crc32(repr(parts).encode()) / 2**32


def steps_of(item: int, way: int) -> int:
    """The steps of a path: 2 to 6."""
    return 2 + int(5 * draw("steps", item, way))


def question_of(item: int) -> str:
    """The text of a question."""
    thing, place = _THINGS[item % 10], _PLACES[item // 10 % 10]
    return f"Whom does the {thing} by the {place} belong to, as far as the picture tells? (item {item})"


def truth_of(item: int) -> str:
    """The true answer, in words that no rule can compare."""
    return f"it belongs to a {_PEOPLE[item % 10]} of the {_PLACES[item // 7 % 10]}"


def answer_of(item: int, way: int) -> str:
    """The answer of a path: the one that most paths of the question give, or one of its own."""
    kind = "common" if draw("answer", item, way) < _COMMON else f"own{way}"
    number = int(1e6 * draw(kind, item))
    person, thing, place = _PEOPLE[number % 10], _THINGS[number // 10 % 10], _PLACES[number // 100 % 10]
    own = "" if kind == "common" else f" and the {_PEOPLE[way]}"
    return f"the {person}{own} who keeps a {thing} at the {place}"


def is_right(item: int, answer: str) -> bool:
    """What the model says of an answer."""
    return draw("right", item, answer) < _RIGHT


def step_text(item: int, way: int, step: int) -> str:
    """The reply that is a step of a path."""
    at = int(len(_SENTENCES) * draw("text", item, way)) + 37 * step
    first, second = _SENTENCES[at % len(_SENTENCES)], _SENTENCES[(at + 211) % len(_SENTENCES)]
    action = "summary" if step + 1 == steps_of(item, way) else "continue"
    content = f"{first} {second} (item {item} way {way})"
    return json.dumps({"title": first[:24].strip(), "content": content, "action": action})


def final_text(item: int, way: int) -> str:
    """The reply that is a final answer."""
    return json.dumps({"answer": answer_of(item, way)})


def verdict_text(item: int, answer: str) -> str:
    """The reply of the answer check."""
    reason = _SENTENCES[crc32(answer.encode()) % len(_SENTENCES)]
    return json.dumps({"correct": is_right(item, answer), "reason": reason})


def scores_text(item: int, count: int) -> str:
    """The reply of the path judge."""
    entries = []
    for path in range(1, count + 1):
        logic, grounding, completeness, score = (1 + int(99 * draw("score", item, path, k)) for k in range(4))
        entry = {"path": path, "logic": logic, "grounding": grounding, "completeness": completeness, "score": score}
        entries.append({**entry, "first_error": None})
    return json.dumps({"scores": entries})


@dataclass(slots=True)
class Request:
    """A request as the server reads it: which reply is due, and the messages as (key, tokens) of each prefix."""

    nodes: list[tuple[int, int]]
    texts: list[str]


def nodes_of(messages: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Of each prefix of a conversation its key and the tokens of its last message."""
    key, nodes = 0, []
    for message in messages:
        key, tokens = node(key, message["role"], message["content"])
        nodes.append((key, tokens))
    return nodes


def node(parent: int, role: str, content: str | list[dict[str, Any]]) -> tuple[int, int]:
    """The key of a prefix that ends with a message, and the message's tokens: 4 characters each, 256 of a picture."""
    if isinstance(content, str):
        return hash((parent, role, content)), 4 + len(content) // 4
    tokens, parts = 4, []
    for part in content:
        url = part.get("image_url")
        if url is None:
            parts.append(hash(part["text"]))
            tokens += len(part["text"]) // 4
        else:
            parts.append(hash(url["url"]))
            tokens += IMAGE_TOKENS
    return hash((parent, role, *parts)), tokens


class Reader:
    """Reads requests; first steps that are asked for one by one count as the question's paths in order of arrival."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}

    def read(self, form: dict[str, Any]) -> Request:
        """What a request asks for."""
        messages = form["messages"]
        kind = form["response_format"]["json_schema"]["name"]
        return Request(nodes_of(messages), self._texts(kind, messages, int(form.get("n", 1))))

    def _texts(self, kind: str, messages: list[dict[str, Any]], n: int) -> list[str]:
        if kind == "answer_verdict":
            shown = messages[1]["content"]
            answer = shown.split("=== CANDIDATE ANSWER", 1)[1].split("\n", 2)[1].removeprefix("| ")
            return [verdict_text(_item(shown), answer)]
        asked = next(part["text"] for part in messages[1]["content"] if "text" in part)
        item = _item(asked)
        if kind == "path_scores":
            found = _COUNT.search(asked)
            assert found is not None
            return [scores_text(item, int(found[1]))]
        if len(messages) == 2:
            first = self._begun.get(item, 0) if n == 1 else 0
            self._begun[item] = first + n
            return [step_text(item, way % PATHS, 0) for way in range(first, first + n)]
        mark = _MARK.search(messages[-2]["content"])
        assert mark is not None
        if kind == "final_answer":
            return [final_text(item, int(mark[2]))]
        return [step_text(item, int(mark[2]), len(messages) // 2 - 1)]


def _item(text: str) -> int:
    found = _ITEM.search(text)
    assert found is not None, text[:200]
    return int(found[1])


def picture(number: int) -> bytes:
    """A JPEG, another for each number, of about 20 KB, as it is and as the product encodes it anew."""
    from PIL import Image

    rng = random.Random(number)
    small = Image.frombytes("RGB", (20, 15), rng.randbytes(20 * 15 * 3))
    buffer = io.BytesIO()
    small.resize((320, 240), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90, subsampling="4:4:4")
    return buffer.getvalue()


def questions(folder: Path, number: int, pictures: int) -> Path:
    """A questions file with its pictures, of which there are at most `pictures`; made once."""
    path = folder / f"questions-{number}.jsonl"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    for item in range(min(number, pictures)):
        file = folder / f"{item}.jpg"
        if not file.exists():
            file.write_bytes(picture(item))
    path.write_text("".join(line for line in _rows(number, pictures)), "utf-8")
    return path


def _rows(number: int, pictures: int) -> Iterator[str]:
    for item in range(number):
        row = {"id": f"item{item}", "question": question_of(item), "answer": truth_of(item)}
        yield json.dumps({**row, "images": [f"{item % pictures}.jpg"]}) + "\n"
