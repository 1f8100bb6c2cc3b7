"""Before training: every row measured by the model's own processor, and those named that would go wrong.

    report = check_rows(dataset, processor, Limits(tokens=4096))
    report.bad        # BadRow(row=17, id="q5#2", code="too_long", ...)
    report.kept       # the numbers of the rows to train on

TRL cuts what is too long without a word, vision sets most of all: here no row is ever cut. The processor itself
measures one row of every combination of picture sizes; what the others' pictures take is known from it. Knows rows in
TRL's form and a processor, no trainer.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from insightv.concurrency import in_time
from insightv.errors import InputError
from insightv.strict_json import Json

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin

Sizes = tuple[tuple[int, int], ...]
"""Width and height in pixels of each picture of a row."""

_MOST_NAMED = 20
_TEMPLATE_S = 10.0
"""A chat template is a program that comes with the model; real ones take milliseconds."""


class Unfit(Exception):
    """A row that cannot be trained on; `code` is short and stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Tokens(NamedTuple):
    """What a row takes: tokens of its texts, of its pictures, and how often they go through the model (2: a pair)."""

    text: int
    image: int
    replies: int = 1

    @property
    def total(self) -> int:
        """The length of the row: of a pair, that of its longer half."""
        return self.text + self.image


@dataclass(frozen=True)
class Memory:
    """How much memory a device needs for a row, in bytes: `fixed` for the model, `per_token` for each token."""

    fixed: int
    per_token: int
    limit: int

    def of(self, tokens: Tokens, batch: int) -> int:
        """The estimate for a batch of rows as long as this one."""
        return self.fixed + self.per_token * tokens.total * tokens.replies * batch


@dataclass(frozen=True)
class Limits:
    """What rows may take: `tokens` in length (None: any), and `memory` for `batch` of them at once (None: any)."""

    tokens: int | None = None
    memory: Memory | None = None
    batch: int = 1


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be trained on.

    Codes: too_long, placeholders, image, empty, memory, equal, template, unreadable.
    """

    row: int
    id: str
    code: str
    message: str


@dataclass
class Preflight:
    """What was found: every row is either kept or bad; `longest` is the number of the longest row kept."""

    rows: int = 0
    kept: list[int] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    longest: int | None = None
    longest_tokens: int = 0
    text_tokens: int = 0
    image_tokens: int = 0
    pictures_measured: int = 0
    warnings: list[str] = field(default_factory=list)

    def json(self) -> dict[str, Json]:
        """The findings as they are kept beside the checkpoints."""
        return asdict(self)

    def told(self) -> str:
        """The bad rows by code and name, as people read them."""
        lines = [f"row {bad.row} ({bad.id}): {bad.code}: {bad.message}" for bad in self.bad[:_MOST_NAMED]]
        rest = len(self.bad) - len(lines)
        return "\n".join(lines) + (f"\n... and {rest} more" if rest > 0 else "")


def check_rows(data: Dataset, processor: ProcessorMixin, limits: Limits, ends: Collection[int] = ()) -> Preflight:
    """Measure every row of a data set in TRL's form (prompt and completion, or prompt, chosen and rejected).

    `ends` are tokens at which the model stops, besides the tokenizer's end of text; a chat template that writes none of
    them after replies is warned of.
    """
    counter, report = RowCounter(processor, ends), Preflight()
    for number, row in enumerate(_undecoded(data)):
        report.rows += 1
        try:
            tokens = counter.count(row)
            _within(tokens, limits)
        except Unfit as bad:
            report.bad.append(BadRow(number, row_id(row), bad.code, str(bad)))
            continue
        report.kept.append(number)
        report.text_tokens += tokens.text
        report.image_tokens += tokens.image
        if tokens.total > report.longest_tokens:
            report.longest, report.longest_tokens = number, tokens.total
    report.pictures_measured = len(counter.measured)
    report.warnings += [counter.endless] if counter.endless else []
    return report


def row_id(row: Mapping[str, Any]) -> str:
    """A row's name: its question, the path, and of a pair the rejected path."""
    name = str(row.get("question_id") or "?")
    name += "" if row.get("path") is None else f"#{row['path']}"
    return name + ("" if row.get("rejected_path") is None else f">{row['rejected_path']}")


class RowCounter:
    """Counts the tokens of rows as the trainer will see them."""

    def __init__(self, processor: ProcessorMixin, ends: Collection[int] = ()) -> None:
        self._processor: Any = processor
        self._tokenizer: Any = self._processor.tokenizer
        self._ends = {*ends, self._tokenizer.eos_token_id} - {None}
        self._image = str(getattr(processor, "image_token", None) or "<image>")
        self._image_id = self._tokenizer.convert_tokens_to_ids(self._image)
        self.measured: dict[Sizes, int] = {}
        self.endless = ""
        """Why the model will not learn to stop, if so."""
        """Tokens that pictures of these sizes take in place of their placeholders."""

    def count(self, row: Mapping[str, Any]) -> Tokens:
        """The tokens of one row, pictures as bytes.

        Raises:
            Unfit: its pictures cannot be opened or do not match their places, the chat template refuses it, or a reply
                is empty or holds a place.
        """
        names = ("chosen", "rejected") if "chosen" in row else ("completion",)
        sizes = tuple(_size(picture) for picture in row["images"])
        prompt, replies = self._texts(row, names)
        if len(set(replies)) < len(replies):
            raise Unfit("equal", "its two replies are equal")
        ids = self._ids(prompt)
        places = ids.count(self._image_id)
        if places != len(sizes):
            raise Unfit(
                "placeholders", f"{places} places of pictures ({self._image}) for {len(sizes)} pictures in the prompt"
            )
        lengths = []
        for reply in replies:
            told = self._ids(reply)
            if self._image_id in told:
                raise Unfit("placeholders", f"a reply holds {self._image}, which stands for a picture")
            self._check_end(told)
            lengths.append(len(told))
        return Tokens(
            len(ids) - places + max(lengths), self._pictures(sizes, prompt, row, len(ids) - places), len(names)
        )

    def _check_end(self, reply: list[int]) -> None:
        """See whether the model is taught where a reply ends; control tokens of a reply's own are broken up before."""
        if not self.endless and self._ends.isdisjoint(reply):
            known = ", ".join(map(str, self._tokenizer.convert_ids_to_tokens(sorted(self._ends)))) or "none is known"
            self.endless = (
                f"the chat template of {self._tokenizer.name_or_path!r} writes nothing after a reply at which the "
                f"model stops ({known}), so it does not learn to stop; write its end of text after the assistant's "
                "turn in chat_template.jinja"
            )

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _texts(self, row: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, list[str]]:
        """The prompt and the replies as TRL's collators make them of the chat template."""
        from jinja2 import TemplateError
        from trl.data_utils import apply_chat_template, prepare_multimodal_messages

        try:
            shown: list[dict[str, Any]] = prepare_multimodal_messages(row["prompt"], images=list(row["images"]))
            texts = {"prompt": "", **dict.fromkeys(names, "")}
            for name in names:
                if not any((block.get("text") or "").strip() for turn in row[name] for block in turn["content"]):
                    raise Unfit("empty", f"its {name} is empty")
            example = {"prompt": shown} | {name: prepare_multimodal_messages(row[name]) for name in names}
            texts = in_time(lambda: apply_chat_template(example, self._processor), _TEMPLATE_S)
        except TimeoutError:
            raise InputError(
                f"the model's chat template did not end within {_TEMPLATE_S:g} s; correct its chat_template.jinja"
            ) from None
        except ValueError as error:
            raise Unfit("placeholders", str(error)) from error
        except TemplateError as error:
            raise Unfit("template", f"the model's chat template (chat_template.jinja) refuses it: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise Unfit("unreadable", f"it is not in TRL's form: {error!r}") from error
        return texts["prompt"], [texts[name] for name in names]

    def _pictures(self, sizes: Sizes, prompt: str, row: Mapping[str, Any], text_tokens: int) -> int:
        if not sizes:
            return 0
        if sizes not in self.measured:
            pictures = [_open(picture) for picture in row["images"]]
            try:
                made = self._processor(
                    images=[pictures], text=[prompt], add_special_tokens=False, return_tensors="pt", padding=True
                )
            except (ValueError, RuntimeError, IndexError) as error:
                raise Unfit("image", f"the processor refuses its pictures of {sizes}: {error}") from error
            self.measured[sizes] = int(made["input_ids"].shape[1]) - text_tokens
        return self.measured[sizes]


def _within(tokens: Tokens, limits: Limits) -> None:
    if limits.tokens is not None and tokens.total > limits.tokens:
        raise Unfit(
            "too_long",
            f"{tokens.total} tokens ({tokens.image} of pictures, {tokens.text} of text), {limits.tokens} are allowed",
        )
    if limits.memory is not None and (need := limits.memory.of(tokens, limits.batch)) > limits.memory.limit:
        raise Unfit(
            "memory",
            f"about {need / 2**30:.2f} GiB for {limits.batch} rows of {tokens.total} tokens, "
            f"{limits.memory.limit / 2**30:.2f} GiB are allowed",
        )


def refuse(report: Preflight, *, skip: bool) -> None:
    """End here where rows are bad and may not be left out, or where none is left.

    Raises:
        InputError: with the names of the rows and the cure.
    """
    if report.bad and not skip:
        raise InputError(
            f"{len(report.bad)} of {report.rows} rows cannot be trained on:\n{report.told()}\n"
            'leave them out with bad_rows = "skip", or raise max_length or memory_gib if they are within reach'
        )
    if not report.kept:
        raise InputError(f"no row can be trained on (of {report.rows}):\n{report.told()}")


def _undecoded(data: Dataset) -> Iterator[Mapping[str, Any]]:
    """The rows with their pictures as bytes: most are only asked for their size."""
    from datasets import Image, List

    return iter(data.cast_column("images", List(Image(decode=False))))


def _open(picture: Mapping[str, Any]) -> Any:
    from PIL import Image

    try:
        return Image.open(io.BytesIO(picture["bytes"]) if picture.get("bytes") else picture["path"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise Unfit("image", f"a picture cannot be opened: {error!r}") from error


def _size(picture: Mapping[str, Any]) -> tuple[int, int]:
    with _open(picture) as image:
        width, height = image.size
    return width, height
