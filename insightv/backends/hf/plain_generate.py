"""For models that `Chains` cannot run: batches of plain `generate`, drawn from as everywhere else, nothing reused."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from insightv.backends.hf.load import Loaded
from insightv.backends.hf.prompt import TEMPLATE_S, Prompt, blocks, endless_template
from insightv.backends.hf.sampling import draw
from insightv.concurrency import in_time
from insightv.errors import ModelError
from insightv.records import Message, Picture

if TYPE_CHECKING:
    from transformers import BatchFeature

    from insightv.backends.hf.rows import Counts, Row


_NOT_THE_MODELS = ("max_time", "stop_strings", "prompt_lookup_num_tokens", "num_beams", "max_length", "min_length")
"""Settings of a model's generation_config.json that would end a reply, or draw it in another way, than is asked for."""


class PlainPrompter:
    """Tokens by the model's own processor alone."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """Render and tokenise.

        Raises:
            ModelError: the template or the processor refuses the conversation (`bad_request`).
        """
        tokens = model_inputs(self._loaded, [messages])["input_ids"][0].tolist()
        return Prompt(tokens, tokens, (), (), sha256(repr(tokens).encode()).digest(), None, tokens)

    def remember(self, prompt: Prompt, reply: str, tokens: Sequence[int]) -> None:
        """Nothing is reused, so nothing is noted."""


class Whole:
    """Rows in batches, each run to its end before the next begins. One thread only."""

    def __init__(self, loaded: Loaded, batch: int, counts: Counts) -> None:
        self.limit = batch
        self.waiting: deque[Row] = deque()
        self.touched: list[Row] = []
        self.counts = counts
        self._batch = batch
        self._loaded = loaded
        for name in _NOT_THE_MODELS:
            setattr(loaded.model.generation_config, name, None)

    @property
    def busy(self) -> bool:
        """Whether any row waits."""
        return bool(self.waiting)

    def step(self) -> None:
        """Run one batch."""
        rows: list[Row] = []
        while self.waiting and len(rows) < self.limit:
            row = self.waiting.popleft()
            if not row.over:
                rows.append(row)
        self.touched = rows
        if rows:
            self._generate(rows)
            for row in rows:
                if not row.over:  # or its caller would wait for ever
                    row.request.fail("malformed", "generate ended before the reply did")
            self.touched = []
            self.limit = min(self._batch, self.limit + 1)

    def back_off(self) -> list[Row]:
        """Put the rows of the batch back in the queue, to be begun anew; returns them."""
        rows, self.touched = [row for row in self.touched if not row.over], []
        for row in reversed(rows):
            row.restart()
            self.waiting.appendleft(row)
        return rows

    def _generate(self, rows: list[Row]) -> None:
        model: Any = self._loaded.model  # which mypy takes for a mere Module, whose attributes are tensors
        inputs = model_inputs(self._loaded, [row.request.messages for row in rows]).to(model.device, model.dtype)
        for row in rows:
            row.request.cached = 0
            self.counts.computed += row.start
        width = inputs["input_ids"].shape[1]
        longest = max(row.request.sampling.max_tokens for row in rows)
        pad = self._loaded.tokenizer.pad_token_id
        chosen = _Choice(rows, self.counts)
        model.generate(
            **inputs,
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=max(1, min(longest, self._loaded.context - width)),
                pad_token_id=pad if pad is not None else 0,
                eos_token_id=sorted(self._loaded.ends) or None,
            ),
            logits_processor=LogitsProcessorList([chosen]),
            stopping_criteria=StoppingCriteriaList([_Done(rows)]),
        )


class _Choice(LogitsProcessor):
    """Draws each row's token and leaves `generate` nothing else to choose."""

    def __init__(self, rows: list[Row], counts: Counts) -> None:
        self._rows = rows
        self._counts = counts

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        open_rows = [i for i, row in enumerate(self._rows) if not row.over]
        forced = torch.full_like(scores, -torch.inf)
        forced[:, 0] = 0
        self._counts.forwards += 1
        if open_rows:
            some = scores[torch.tensor(open_rows, device=scores.device)]
            for i, token in zip(open_rows, draw(some, [self._rows[i].draws for i in open_rows]), strict=True):
                self._rows[i].push(token)
                self._counts.drawn += 1
                forced[i, 0] = -torch.inf
                forced[i, max(token, 0)] = 0
        return forced


class _Done(StoppingCriteria):
    """Ends a row when it is done, whatever token it ended with."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        return torch.tensor([row.over for row in self._rows], device=input_ids.device)


def model_inputs(loaded: Loaded, conversations: Sequence[Sequence[Message]]) -> BatchFeature:
    """What the processor makes of whole conversations: everything that `forward` takes, padded on the left."""
    from PIL import Image

    filled = []
    controls = [token.content for token in loaded.tokenizer.added_tokens_decoder.values() if token.special]
    guarded = False
    for messages in conversations:
        turns = blocks(messages)
        for turn, message in zip(turns, messages, strict=True):
            turn["content"] = [
                {"type": "image", "image": Image.open(io.BytesIO(part.data)).convert("RGB")}
                if isinstance(part, Picture)
                else {"type": "text", "text": part}
                for part in message.parts
            ]
            texts = [part for part in message.parts if isinstance(part, str)]
            guarded = guarded or any(control in text for control in controls for text in texts)
        filled.append(turns)
    loaded.tokenizer.padding_side = "left"
    asked = partial(
        loaded.processor.apply_chat_template,
        filled,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": len(filled) > 1},
        sanitize_control_tokens=guarded,
    )
    try:
        inputs: BatchFeature = in_time(asked, TEMPLATE_S)
    except TimeoutError:
        raise endless_template() from None
    except Exception as error:  # Jinja's errors and those of processors have no common class
        raise ModelError("bad_request", f"the model refuses this conversation: {error}") from error
    return inputs
