"""Text that others wrote (a question, a choice, a path, an answer), before it goes into a prompt.

Control tokens in it are broken up always. Where a line of it could be read as a part of the prompt (`REASONING:`, a tag
of a path, `Assistant:`), all of it is quoted: each line begins with "| ", so that none can be a delimiter. Any other
text goes in as it is, byte for byte: that is what the trained agents have learned from.

The tokens of a model that is loaded in this process are known from its tokenizer (`backends.hf.prompt`,
`train.finetune.control_tokens`); behind a server there may be any model, so these are the ones of the known families.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache

from insightv.agents.replies.transcript import TAGS, Tags, tag_pattern
from insightv.records import Question, Step

_NAME = r"[^\s<>|]{1,80}"
CONTROL_TOKENS: Mapping[str, str] = {
    "ChatML, Qwen-VL, Llama 3 and 4, Phi, GLM, harmony, Gemma 4, Command R": rf"<(?=\|{_NAME}\|?>|{_NAME}\|>)",
    "DeepSeek": r"<(?=\uff5c[^<>\uff5c\n]{1,80}\uff5c>)",
    "Llama 2, Mistral": r"\[(?=/?(?i:INST)\])|<(?=</?(?i:SYS)>>)|<(?=/?(?i:s|bos|eos|pad|unk|mask)>)"
    r"|\[(?=/?(?:AVAILABLE_TOOLS|MODEL_SETTINGS|SYSTEM_PROMPT|THINK|TOOL_(?:CALLS|CONTENT|RESULTS))\])"
    r"|\[(?=(?:ARGS|AUDIO|BEGIN_AUDIO|CALL_ID|IMG|IMG_BREAK|IMG_END|MIDDLE|PREFIX|SUFFIX|TRANSCRIBE)\])",
    "Gemma": r"<(?=(?:start|end)_of_(?:turn|image|audio)>|(?:image|audio)_soft_token>|unused\d+>)",
    "GLM": r"\[(?=[gs]?MASK\])|<(?=[es]op>)",
    "Vicuna, LLaVA 1.5": r"(?<=USER)(?=:)|(?<=ASSISTANT)(?=:)",
    "Thinking and tools": r"<(?=/?(?:think|tool_call|tool_response|tools)>)",
    "T5, Nemotron": r"<(?=(?:extra_id|SPECIAL)_\d+>)",
    "Places of pictures": r"<(?=/?(?i:image|img|video|audio|box|ref|quad|slice|image_id|im_start|im_end)>)"
    r"|<(?=(?:im_patch|im_col|image_placeholder|begin_of_image|end_of_image|IMG_CONTEXT|end_of_utterance)>)"
    r"|<(?=(?:fake_token_around_image|global-img|row_\d+_col_\d+|loc\d{4}|seg\d{3})>)",
}
"""Where a blank goes into the control tokens of chat templates, by the families of models that have them.

A blank, since it is seen: a reader still reads `< |im_end|>`, and no data looks whole that is not. A character of no
width would be dropped by some tokenizers, which then make the token after all.
"""
_TOKENS = re.compile("|".join(CONTROL_TOKENS.values()))

_AROUND = r"[\W_]*"  # Markdown, brackets and blanks around a label
_LABEL = re.compile(
    rf"{_AROUND}(?:(?i:reasoning|user|human|assistant|system)|QUESTION){_AROUND}:"
    rf"|[^\w#]*#{_AROUND}(?i:instruction|input|response){_AROUND}:"  # of Alpaca
)
"""A line that reads as a label of the summary agent's prompt, or as the beginning of a turn.

Not `Question:`, with which many a question of public data sets begins.
"""
_INLINE = re.compile(r"\bREASONING\s*:")
_UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")


class FencedQuestion(Question):
    """A question whose text was composed of texts that are fenced each, under labels that are to be read as such."""


def plain(text: str) -> str:
    """The text with control tokens of chat templates broken up by a blank."""
    return broken(_TOKENS, text)


def broken(tokens: re.Pattern[str], text: str) -> str:
    """The text with a blank behind the first character of each token that the pattern finds."""
    return tokens.sub(lambda token: f"{token[0][:1]} {token[0][1:]}", text)


def quote(text: str, tags: Tags = TAGS) -> str:
    """The text with "| " before each line (any line break of Unicode counts), control tokens and tags broken up."""
    text = broken(tag_pattern(tags), plain(text))
    return "\n".join(f"| {_UNPRINTABLE.sub(chr(0xFFFD), line)}" for line in text.splitlines() or [""])


def fenced(text: str, name: str, *, label: str = "", tags: Tags = TAGS) -> str:
    """`label` and the text; quoted under `name` where the text could be read as something else in the prompt."""
    if could_be_ours(text, tags):
        return f'{name}, each line after "| ":\n{quote(text, tags)}'
    return label + plain(text)


def asked_text(question: Question, name: str = "The question", *, label: str = "", tags: Tags = TAGS) -> str:
    """The question with its choices as it goes into a prompt, `fenced`."""
    text = question.text
    if isinstance(question, FencedQuestion) and not tag_pattern(tags).search(text):
        return label + plain(text)
    return fenced(text, name, label=label, tags=tags)


def fenced_step(step: Step) -> Step:
    """The step as it is shown to another model, in the block of `to_text`, which keeps tags out itself."""
    content = quote(step.content) if could_be_ours(step.content) else plain(step.content)
    return Step(title=plain(step.title), content=content, action=step.action)


def could_be_ours(text: str, tags: Tags | None = None) -> bool:
    """Whether a line of the text reads as a label or a turn of a prompt, or one of the tags stands in it.

    As a reader takes it: characters that are not seen and Markdown do not count, full-width letters are letters.
    """
    if not text.isascii():
        seen = unicodedata.normalize("NFKC", text)
        text = "".join(character for character in seen if unicodedata.category(character) != "Cf")
    if tags is not None and _loosely(tags).search(text):
        return True
    return _INLINE.search(text) is not None or any(map(_LABEL.match, text.splitlines()))


@lru_cache(maxsize=16)
def _loosely(tags: Tags) -> re.Pattern[str]:
    """The tags in any case, also with blanks or backslashes within."""
    return re.compile("|".join(r"[\s\\]*".join(map(re.escape, tag)) for tag in tags), re.IGNORECASE)
