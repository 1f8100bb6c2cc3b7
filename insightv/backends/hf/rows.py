"""A request to the engine and its rows: what has been drawn, when a row is done, and what goes back to the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from insightv.backends.hf.load import Loaded
from insightv.backends.hf.prompt import Prompt, Prompts
from insightv.backends.hf.sampling import Draws
from insightv.errors import ModelError
from insightv.records import Completion, Finish, Message, Sampling, Usage


@dataclass
class Counts:
    """What an engine has done: forward passes, prompt tokens computed and not computed again, drawn tokens."""

    forwards: int = 0
    computed: int = 0
    reused: int = 0
    drawn: int = 0


@dataclass(eq=False)
class Request:
    """One call: `n` replies to a conversation. `deliver` and `on_text` may be called from any thread.

    Setting `cancelled` frees its rows before their next token.
    """

    messages: Sequence[Message]
    prompt: Prompt
    sampling: Sampling
    n: int
    deliver: Callable[[list[Completion] | BaseException], None]
    on_text: Callable[[str], None] | None = None
    cancelled: bool = False
    cached: int | None = None
    rows: list[Row] = field(default_factory=list)

    def usage(self) -> Usage:
        """What the request has cost so far."""
        return Usage(
            prompt_tokens=len(self.prompt.tokens),
            cached_tokens=self.cached or 0,
            completion_tokens=sum(row.spent for row in self.rows),
            requests=1,
        )

    def fail(self, code: str, text: str) -> None:
        """Give the caller an error instead of replies."""
        if not self.cancelled:
            self.cancelled = True
            self.deliver(ModelError(code, text, usage=self.usage()))


class Row:
    """One reply in the making. `tokens` are the prompt and what was drawn, `length` how many have states in `slot`."""

    def __init__(self, request: Request, index: int, loaded: Loaded, prompter: Prompts) -> None:
        self.request = request
        self.tokens = list(request.prompt.tokens)
        self.keys = list(request.prompt.keys)
        self.draws = Draws(request.sampling, index)
        self.slot: int | None = None
        self.length = 0
        self.finish: Finish | None = None
        self.text = ""
        self.ended = False
        self._index = index
        self._loaded = loaded
        self._prompter = prompter
        self._sent = ""

    @property
    def start(self) -> int:
        """The number of prompt tokens."""
        return len(self.request.prompt.tokens)

    @property
    def drawn(self) -> list[int]:
        """The tokens of the reply, without the one that ended it."""
        return self.tokens[self.start :]

    @property
    def spent(self) -> int:
        """Drawn tokens as they are counted, the end token included."""
        return len(self.tokens) - self.start + self.ended

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do for it."""
        return self.finish is not None or self.request.cancelled

    def restart(self) -> None:
        """Forget what was drawn, to draw it again from the same random numbers."""
        self.tokens, self.keys = list(self.request.prompt.tokens), list(self.request.prompt.keys)
        self.draws = Draws(self.request.sampling, self._index)

    def push(self, token: int) -> None:
        """Take a drawn token; -1 says that the logits were no numbers."""
        if token < 0:
            self.request.fail("malformed", "the model's output is not a number (NaN); try dtype = 'float32'")
            return
        if token in self._loaded.ends:
            self.ended = True
            self._done("stop")
            return
        self.tokens.append(token)
        self.keys.append(token)
        if self.spent >= self.request.sampling.max_tokens or len(self.tokens) >= self._loaded.context:
            self._done("length")
        elif self.request.on_text is not None:
            self._send(self._decoded(self.drawn))

    def _done(self, finish: Finish) -> None:
        drawn = self.drawn
        self.text = self._decoded(drawn)
        self.finish = finish
        if self.text == self._decoded(drawn, special=True):
            self._prompter.remember(self.request.prompt, self.text, drawn)
        if self.request.on_text is not None:
            self._send(self.text, last=True)
        if all(row.finish is not None for row in self.request.rows) and not self.request.cancelled:
            usage = [self.request.usage(), *[Usage()] * (self.request.n - 1)]
            rows = zip(self.request.rows, usage, strict=True)
            self.request.deliver([Completion(text=r.text, finish=r.finish or "stop", usage=u) for r, u in rows])

    def _send(self, text: str, last: bool = False) -> None:
        # A character may take several tokens; until it is whole it decodes to the replacement character.
        whole = last or not text.endswith("\ufffd")
        if self.request.on_text is not None and whole and len(text) > len(self._sent) and text.startswith(self._sent):
            self.request.on_text(text[len(self._sent) :])
            self._sent = text

    def _decoded(self, tokens: list[int], special: bool = False) -> str:
        text = self._loaded.tokenizer.decode(
            tokens, skip_special_tokens=not special, clean_up_tokenization_spaces=False
        )
        return str(text)
