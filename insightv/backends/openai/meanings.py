"""What the errors of servers mean: one table of rules, by their words, since the same status means many things.

The first rule whose words and status fit counts. Where none fits, the status says what is left to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from insightv.backends.openai.error_body import ServerError

Meaning = Literal["credit", "content", "too_long", "limit", "key", "model", "forbidden", "trouble", "refused"]


@dataclass(frozen=True, slots=True)
class Rule:
    """`words` are searched in the codes, `said` in codes and message; the status is one of `statuses` (none: any)."""

    meaning: Meaning
    reason: str
    words: re.Pattern[str] | None = None
    said: re.Pattern[str] | None = None
    statuses: range | tuple[int, ...] = ()
    timed: bool = False
    """Whether the server must name a time as well."""

    def fits(self, error: ServerError) -> bool:
        """Whether an error is meant."""
        if (self.statuses and error.status not in self.statuses) or (self.timed and error.wait_s is None):
            return False
        if self.words is None and self.said is None:
            return True
        in_codes = self.words is not None and self.words.search(" ".join(error.codes))
        return bool(in_codes or (self.said is not None and self.said.search(error.words)))


def _any_of(*parts: str) -> re.Pattern[str]:
    return re.compile("|".join(parts), re.IGNORECASE)


RULES = (
    Rule(
        "credit",
        "a code that says so is beyond doubt, whatever the status",
        words=_any_of(
            r"insufficient[_ ]?(user[_ ]?)?(quota|balance|credit|fund)",
            "billing_(hard_limit_reached|not_active|error)",
            r"\bquota_exceeded\b", "arrearage", "exceeded_current_quota", "payment_required", "credit_balance",
        ),
    ),
    Rule("credit", "Payment Required", statuses=(402,)),
    Rule(
        "limit",
        "quota that is there again at a time that the server names is a limit; Google says 'quota' and 'billing' too",
        statuses=(429,),
        timed=True,
    ),
    Rule(
        "too_long",
        "Groq limits the tokens of a minute, and a request above that is never let through",
        said=_any_of("request too large"),
        statuses=(413, 429),
    ),
    Rule(
        "limit",
        "gateways answer 200, 400, 403 or 503 to a rate limit, and say so by its code",
        words=_any_of("rate_?limit", "throttl", "too_?many_?requests", "slow_?down"),
        said=_any_of(r"rate limit (is )?(exceeded|reached)", "too many requests"),
        statuses=(0, *range(400, 402), *range(403, 600)),
    ),
    Rule(
        "credit",
        "providers have words of their own for an account that is used up, suspended or unpaid, and any status",
        said=_any_of(
            r"credit balance|insufficient (account )?(credit|balance|quota|fund)|balance (is )?(insufficient|too low)",
            r"not enough (credit|balance|fund|money)|out of (credit|fund)|no (remaining )?credits? (left|remaining)",
            r"(run|ran) out of [\w ]{0,20}credit|used all (available |your )?[\w ]{0,10}credit|negative balance",
            r"(is|are|be) in good standing|overdue|unpaid|in arrears|(check|update|add)[\w ,]{0,30}\bbilling",
            r"plans? (&|and) billing|payment (is )?(required|method)|(hard|spending|spend|billing) limit|prepaid",
            r"(account|organi[sz]ation|team)\b[^.]{0,60}\b(suspended|deactivated|disabled|frozen|inactive)",
            r"top[ -]?up|recharge|余额不足|欠费",
        ),
    ),
    Rule(
        "content",
        "a code that names a content check is about this call alone, also with 401, which hosts use for it too",
        words=_any_of(
            "content_?filter", "content_?policy", "moderation", "data_?inspection", "prohibited_?content", "recitation",
            "model_?armor", "responsible_?ai", r"\bsafety", "sensitive", "guardrail", "blocked_?content",
        ),
        statuses=(0, *range(400, 401), *range(403, 429), *range(430, 600)),
    ),
    Rule(
        "content",
        "providers have words of their own for a content check, and answer 400, 403 or 200",
        said=_any_of(
            r"usage guidelines|content (management|filter|polic|safety|check|moderation|exists risk|(was|is) blocked)",
            r"moderation|(was|were|been|is) flagged|inappropriate|harmful|responsible ai|prohibited[ _](content|use)",
            r"recitation|model[ _]armor|data[ _]?inspection|safety (system|check|filter|polic|reason|setting|concern)",
            r"blocked (by|due to|for|because)[\w' ]{0,40}(safety|policy|filter|content|guardrail|risk)|guardrail|nsfw",
            r"violat\w*[\w' ]{0,40}(polic|guideline|terms)|sensitive (content|information|words|data)|不安全|敏感",
        ),
        statuses=(0, *range(400, 401), *range(403, 404), *range(405, 429), *range(430, 500)),
    ),
    Rule(
        "too_long",
        "the same request is too long at every try; llama.cpp answers 500 to it, or 200",
        said=_any_of(
            r"context[_ ](length|window|size)|exceed_context_size|max(imum)?[_ ](model|context|input|sequence)[_ ]?len",
            r"(prompt|input|request|message)s? (is|are) too long|too many (input |prompt )?tokens",
            r"(token count|input tokens?|prompt tokens?|input length|prompt length)[^.]{0,60}(exceed|longer|larger)",
            r"maximum (allowed )?(number of )?(input )?tokens|longer than the maximum|reduce the length of",
        ),
        statuses=(0, *range(400, 401), *range(403, 600)),
    ),
    Rule("key", "Unauthorized", statuses=(401,)),
    Rule(
        "key",
        "Google answers 400 to a key that it does not know",
        words=_any_of("invalid_api_key", "api_key_invalid", "authentication_error"),
        said=_any_of(r"api[ _-]?key (is )?(not valid|invalid)|(invalid|incorrect) api[ _-]?key"),
        statuses=range(400, 404),
    ),
    Rule("forbidden", "of the key where nothing was ever answered, else of this call", statuses=(403,)),
    Rule("model", "Not Found, Gone", statuses=(404, 410)),
    Rule(
        "model",
        "DeepSeek answers 400 to a model that it does not have",
        words=_any_of("model_?not_?found", "invalid_?model"),
        said=_any_of(r"\bmodel\b[^.;]{0,80}(does not exist|not exist|not found)"),
        statuses=(400,),
    ),
    Rule("limit", "Too Many Requests", statuses=(429,)),
    Rule("trouble", "a try later may go well", statuses=(408, 409, 425, *range(500, 600))),
    Rule("refused", "what is left of 400 to 499 is the request's fault", statuses=range(400, 500)),
)  # fmt: skip
"""An error that no rule fits is one with 200 that gives no code: nothing is known of it."""


def meaning_of(error: ServerError) -> Rule | None:
    """The first rule that fits."""
    return next((rule for rule in RULES if rule.fits(error)), None)
