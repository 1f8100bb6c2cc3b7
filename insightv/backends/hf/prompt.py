"""From messages to tokens: the model's own chat template and processor, and tokens that grow with a chain.

The text is tokenised with one placeholder per picture, which is then replaced by the picture's own tokens. Where a
conversation continues from a reply of this model, the reply's tokens are taken as they were drawn: writing them anew
from their text may give others, and then neither the model's own words nor their kept states would be used.
"""

from __future__ import annotations

import io
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

import torch

from insightv.backends.hf.load import Loaded
from insightv.concurrency import in_time
from insightv.errors import ModelError
from insightv.records import Message, Picture

if TYPE_CHECKING:
    from PIL.Image import Image

_PIXEL_BYTES = 256 << 20
_TRANSCRIPTS = 4096

TEMPLATE_S = 10.0
"""A chat template is a program that comes with the model; real ones take milliseconds."""


def endless_template() -> ModelError:
    """The error of a model whose chat template does not end."""
    text = f"the model's chat template did not end within {TEMPLATE_S:g} s; correct its chat_template.jinja"
    return ModelError("bad_request", text)


@dataclass(frozen=True)
class Prompt:
    """A conversation as tokens.

    `keys` are the tokens with those of pictures replaced by numbers of the picture; `spans` says where in `tokens` each
    of `pictures` stands. `text` and `short` are the rendered text and its tokens with one placeholder per picture;
    `text` is None where tokens cannot be told from the text alone.
    """

    tokens: list[int]
    keys: list[int]
    spans: tuple[tuple[int, int], ...]
    pictures: tuple[Picture, ...]
    chain: bytes
    text: str | None
    short: list[int]


class Prompts(Protocol):
    """What makes prompts of conversations: `Prompter`, or the processor alone for models that it does not fit."""

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """Render and tokenise a conversation."""

    def remember(self, prompt: Prompt, reply: str, tokens: Sequence[int]) -> None:
        """Note which tokens a reply was drawn as."""


@dataclass(frozen=True)
class _Seen:
    """Pictures as the model takes them: the tokens that stand for them, and the tensors of the processor."""

    tokens: list[int]
    tensors: dict[str, torch.Tensor]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


class Prompter:
    """Renders conversations for one loaded model. Safe to use from several threads."""

    def __init__(self, loaded: Loaded) -> None:
        self._processor = loaded.processor
        self._tokenizer = loaded.tokenizer
        self.placeholder = str(getattr(loaded.processor, "image_token", "<image>"))
        self._placeholder_id = loaded.tokenizer.convert_tokens_to_ids(self.placeholder)
        control = [token.content for token in loaded.tokenizer.added_tokens_decoder.values() if token.special]
        self._control = re.compile("|".join(map(re.escape, control)) or r"(?!)")
        self._seen: OrderedDict[tuple[str, ...], _Seen] = OrderedDict()
        self._seen_bytes = 0
        self._said: OrderedDict[bytes, tuple[str, list[int]]] = OrderedDict()
        self._lock = threading.Lock()

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """Render and tokenise.

        Raises:
            ModelError: the template refuses the conversation, or a picture does not fit in (`bad_request`).
        """
        pictures = tuple(part for message in messages for part in message.parts if isinstance(part, Picture))
        text: str | None = None
        if any(self._control.search(part) for m in messages for part in m.parts if isinstance(part, str)):
            short = self._guarded(messages)
        else:
            text = self.render(messages)
            short = self._grown(messages, text)
        return self._widened(messages, pictures, text, short)

    def remember(self, prompt: Prompt, reply: str, tokens: Sequence[int]) -> None:
        """Note that `reply` to `prompt` was drawn as `tokens`, for the conversations that continue from it."""
        if prompt.text is None or self._control.search(reply):
            return
        key = _chain(prompt.chain, Message(role="assistant", content=reply))
        with self._lock:
            self._said[key] = (prompt.text + reply, [*prompt.short, *tokens])
            self._said.move_to_end(key)
            while len(self._said) > _TRANSCRIPTS:
                self._said.popitem(last=False)

    def tensors(self, pictures: Sequence[Picture]) -> dict[str, torch.Tensor]:
        """What the model's forward takes for these pictures besides tokens."""
        return self._look(tuple(pictures)).tensors if pictures else {}

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as text, in the model's own format and open for its reply."""
        ask = self._processor.apply_chat_template
        try:
            text = in_time(lambda: ask(blocks(messages), add_generation_prompt=True, tokenize=False), TEMPLATE_S)
        except TimeoutError:
            raise endless_template() from None
        except Exception as error:  # Jinja's errors and raise_exception of templates have no common class
            raise ModelError("bad_request", f"the model's chat template refuses this conversation: {error}") from error
        return str(text)

    def _grown(self, messages: Sequence[Message], text: str) -> list[int]:
        bos = self._tokenizer.bos_token
        encoded = self._tokenizer(
            text,
            add_special_tokens=not (bos and text.startswith(bos)),
            return_offsets_mapping=self._tokenizer.is_fast,
        )
        ids: list[int] = encoded["input_ids"]
        for end in range(len(messages), 0, -1):
            if messages[end - 1].role != "assistant" or not self._tokenizer.is_fast:
                continue
            with self._lock:
                said = self._said.get(_chain(b"", *messages[:end]))
            if said is not None and text.startswith(said[0]):
                starts = [start for start, _ in encoded["offset_mapping"]]
                tail = next((i for i, start in enumerate(starts) if start >= len(said[0])), len(ids))
                if tail < len(ids) and starts[tail] == len(said[0]):
                    return [*said[1], *ids[tail:]]
        return ids

    def _guarded(self, messages: Sequence[Message]) -> list[int]:
        """Tokens where the texts hold control tokens of the model (`<image>`, end of turn): those become plain text."""
        asked = partial(
            self._tokenizer.apply_chat_template,
            blocks(messages),
            chat_template=self._processor.chat_template,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            sanitize_control_tokens=True,
        )
        try:
            ids = in_time(asked, TEMPLATE_S)
        except TimeoutError:
            raise endless_template() from None
        except Exception as error:  # as in render; a tokenizer that cannot write such text as text refuses too
            raise ModelError(
                "bad_request", f"a text of this conversation holds a control token of the model's, refused: {error}"
            ) from error
        return list(ids)

    def _widened(
        self, messages: Sequence[Message], pictures: tuple[Picture, ...], text: str | None, short: list[int]
    ) -> Prompt:
        if short.count(self._placeholder_id) != len(pictures):
            raise ModelError(
                "bad_request",
                f"{len(pictures)} pictures were given and the rendered conversation has places for"
                f" {short.count(self._placeholder_id)}; the model's chat template does not take them so",
            )
        if not short or (pictures and short[-1] == self._placeholder_id):
            raise ModelError("bad_request", "the rendered conversation is empty or ends in a picture")
        tokens: list[int] = []
        keys: list[int] = []
        spans: list[tuple[int, int]] = []
        for token in short:
            if token != self._placeholder_id:
                tokens.append(token)
                keys.append(token)
                continue
            picture = pictures[len(spans)]
            wide = self._look((picture,)).tokens
            first = -1 - int(picture.sha256[:12], 16)
            spans.append((len(tokens), len(tokens) + len(wide)))
            tokens.extend(wide)
            keys.extend([first] * len(wide))
        return Prompt(tokens, keys, tuple(spans), pictures, _chain(b"", *messages), text, short)

    def _look(self, pictures: tuple[Picture, ...]) -> _Seen:
        key = tuple(picture.sha256 for picture in pictures)
        with self._lock:
            if (seen := self._seen.get(key)) is not None:
                self._seen.move_to_end(key)
                return seen
        try:
            output = self._processor(
                text=self.placeholder * len(pictures), images=[_opened(p) for p in pictures], return_tensors="pt"
            )
        except Exception as error:  # errors of processors have no common class: division by zero, an index, a key
            raise ModelError("bad_request", f"the model's processor refuses the picture: {error}") from error
        wide, plain = output["input_ids"][0].tolist(), self._tokenizer(self.placeholder * len(pictures))["input_ids"]
        before = plain.index(self._placeholder_id)
        after = len(plain) - len(pictures) - before
        tensors = {name: value for name, value in output.items() if name not in ("input_ids", "attention_mask")}
        seen = _Seen(wide[before : len(wide) - after], tensors)
        with self._lock:
            if key not in self._seen:
                self._seen[key] = seen
                self._seen_bytes += seen.nbytes
            while self._seen_bytes > _PIXEL_BYTES and len(self._seen) > 1:
                self._seen_bytes -= self._seen.popitem(last=False)[1].nbytes
        return seen


def blocks(messages: Sequence[Message]) -> list[dict[str, object]]:
    """The messages in transformers' form, pictures as bare image blocks."""
    return [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in message.parts
            ],
        }
        for message in messages
    ]


def _chain(start: bytes, *messages: Message) -> bytes:
    for message in messages:
        start = sha256(start + message.digest).digest()
    return start


def _opened(picture: Picture) -> Image:
    from PIL import Image

    return Image.open(io.BytesIO(picture.data)).convert("RGB")
