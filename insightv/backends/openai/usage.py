"""What a request has cost, in the words of the servers in use."""

from __future__ import annotations

from insightv.records import Usage

_MOST_TOKENS = 10**9
"""Of one request; a server that counts more has counted wrong, and would use up a budget at once."""
_PROMPT = ("prompt_tokens", "input_tokens", "promptTokenCount")
_COMPLETION = ("completion_tokens", "output_tokens", "candidatesTokenCount")
_TOTAL = ("total_tokens", "totalTokenCount")


def read_usage(form: object) -> Usage:
    """The token counts of a reply; what is missing or is not a count is 0.

    Tokens that stand in the total alone are the model's: those of thoughts, which some servers count nowhere else, and
    of a server that tells nothing but the total the dearer kind.
    """
    if not isinstance(form, dict):
        return Usage()
    prompt, completion = _count(form, *_PROMPT), _count(form, *_COMPLETION)
    details = form.get("prompt_tokens_details") or form.get("input_tokens_details")
    cached = _count(details, "cached_tokens") or _count(form, "prompt_cache_hit_tokens", "cached_tokens")
    if "input_tokens" in form and "prompt_tokens" not in form:  # Anthropic counts what was cached apart
        read = _count(form, "cache_read_input_tokens")
        prompt, cached = prompt + read + _count(form, "cache_creation_input_tokens"), cached or read
    return Usage(
        prompt_tokens=prompt,
        cached_tokens=min(prompt, cached),
        completion_tokens=max(completion, _count(form, *_TOTAL) - prompt),
    )


def _count(form: object, *names: str) -> int:
    """The largest of the counts; a whole number may be written as 7.0."""
    found = [0]
    for name in names:
        value = form.get(name) if isinstance(form, dict) else None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS:
            found.append(value)
    return max(found)
