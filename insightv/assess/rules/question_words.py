"""What a question's own words say of its answer: how a number is to be met, and whether the order of a list counts.

Words that are not there prove nothing: a question of which nothing is known is one for the value of a chart.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from insightv.assess.rules import numbers
from insightv.assess.rules.comparison import Comparison
from insightv.assess.rules.normalise import plain, stems
from insightv.assess.rules.units import SCALES, units_of

_ASKS_QUANTITY = re.compile(
    r"\bhow (?:many|much)\b|\bvalue|\bnumber of\b|\bamount|\btotal|\bdifference|\bsum\b|\baverage|\bmean\b"
)
_COUNTS = re.compile(r"\bhow (?:many|old)\b|\bnumbers? of\b|\bcount\b")
_COUNTS_UNITS = re.compile(
    r"\bhow many (?:percent|percentage|%|hundred|thousand|million|billion|trillion|units|times|degrees)"
    r"|\bin (?:hundreds|thousands|millions|billions|trillions|%|percent)\b"
)
_ASKS_SCALE = re.compile(r"\b(?:in|how many) (hundred|thousand|million|billion|trillion)s?\b")
_ASKS_YEAR = re.compile(
    r"\b(?:which|what|what's|whats|name|find|give|state|tell|identify|say|report|select|choose|specify|determine|write"
    r"|indicate|provide|mention|list)\b"
    r"(?: (?:is|was|are|were|be|me|us|of|out|one|the|these|those|most|recent|exact|calendar|fiscal|financial"
    r"|single|only|best|worst|first|last|second|third|final|previous|next|peak|record|[a-z]+(?:est|ing|ed)))* years?\b"
    r"|(?:^|[.?!:;,]\s*)(?:since |until |by |from )?when\b|\bwhen (?:is|are|was|were|do|does|did|has|had|have|will)\b"
)
"""The year is what is asked for; words that count or measure stand in between otherwise ("which value of the year")."""
_SPEAKS_OF_YEAR = re.compile(r"\byears?\b|\bwhen\b|\bdates?\b|\bsince\b")
_MAY_BE_YEAR = re.compile(
    r"\b(?:dated|periods?|decades?|century|centuries|era|time|seasons?|born|founded|established|published|released"
    r"|copyright|edition|vintage|x|axis|axes|labels?|ticks?|category|categories|legend)\b|\bx-"
    r"|\ba[n\u00f1]os?\b|\bann[o\u00e9i]|\bann[\u00e9e]e|\bjahr|\bjaar|\b\u00e5r|\brok|\bvuo[sn]|\by\u0131l|\btahun\b"
    r"|\b\u0433\u043e\u0434|\u5e74|\ub144|\u0633\u0646\u0629|\u0639\u0627\u0645|\u0935\u0930\u094d\u0937|\u0938\u093e\u0932"
    r"|\bwann\b|\bquand\b|\bcu[a\u00e1]ndo\b|\bquando\b|\bwanneer\b|\bkiedy\b|\bn\u00e4r\b|\u043a\u043e\u0433\u0434\u0430"
)
"""What is asked for may be a year, or a label that is one; also in some other languages."""
_SPEAKS_OF_HEAT = re.compile(r"temperat|kelvin|thermo|\bk\b|\b(?:heat|hot|warm|cold|cool|melt|boil|freez|degree)")
_SPEAKS_OF_CHANGE = re.compile(
    r"decreas|declin|drop|fall|fell|difference|chang|loss|lost|lower|less|reduc|shr[aiu]nk|down"
)
_EXACT = re.compile(
    r"\b(?:numbers?|no|code|id)\b(?! of)|#|\bcodes?\b|\bversion\b|\bserial\b|\bisbn\b"
    r"|(?<!the)(?<!total)(?<!average)(?<!mean)(?<!est)(?<!a) numbers? of\b"
    r"|\b(?:which|what) (?:page|room|chapter|episode|highway|route|platform|gate|channel|flight|model|bus|seat)\b"
    r"|\b(?:which|what)(?: is| was)?(?: the)? (?:date|day)\b"
    r"|\bsolve\b|\bequations?\b|\bangles?\b|\btriangles?\b|\bperimeter\b|\bcircumference\b|\bhypotenuse\b|\bprobability\b"
    r"|\bfind (?:the )?(?:(?:value|measure|length) of )?\W?[a-z]{1,2}\b\W{0,2}(?:$|[.,?])"
    r"|\b(?:what is|value of) \W?[b-z]\b\W{0,3}$|\d\s*[+*×÷^]\s*\d|\d\s+[-−]\s+\d|[a-z]\s*=\s*[?\d]"  # noqa: RUF001
    r"|\breceipt\b|\bmenu\b|\binvoice\b|\bprice tag\b|\bsign\b|\b(?:says?|written|printed)\b"
)
"""The number names a thing, is computed, or is printed: one that is merely near may be a slip."""
_SLASHED_NAMES = re.compile(
    r"\bwhen\b|\bdates?\b|\bdays?\b|\bseasons?\b|\byears?\b|\bhours\b|\btime\b|\bscores?\b|\bversion\b"
    r"|\bblood pressure\b|\bsignature\b|\bvision\b|\baddress\b|\bmodel\b|\bdeadline\b|\bexpir"
)
_ORDERED = re.compile(
    r"\b(?:in|the|what) (?:\w+ )?order\b|\b(?:order|rank|sort|arrange)\b (?!of magnitude)|\bascending\b|\bdescending\b"
    r"|\bsequence\b|\brespectively\b|\bcoordinates?\b|\bchronological|\bfrom (?:left|right|top|bottom|the \w+)\b"
    r"|\b(?:small|larg|high|low|great|old|young|new|long|short|bigg|fast|slow|earli|lat)est (?:\w+ )?(?:to|first)\b"
    r"|\bfirst (?:and|to) (?:the )?(?:second|last)\b|\bvalues? (?:of|for|in|at)\b.{0,80}\band\b|\beach\b"
)
_OTHER_LANGUAGE = re.compile(
    r"[^\W\d_a-z\u00c0-\u024f\u0370-\u03ff]"  # letters of other scripts; single Greek ones stand in formulas
    r"|\b(?:wie|viele|wieviel|welche[rsmn]?|anzahl|ist|der|die|das|und|combien|quel(?:le)?s?|est|les|des|dans"
    r"|cu[aá]nt[oa]s?|cu[aá]l|qu[eé]|el|los|las|quant[eio]s?|qual[ie]?|il|della|hoeveel|aantal|het|een"
    r"|n[uú]mero|ile|jest|kolik|hur|många|hvor|mange|ka[cç])\b"
)
"""A question that is not English, so that the words above cannot be looked for in it."""


@lru_cache(maxsize=64)  # a question is asked about the answer of each of its paths
def comparison(question: str, tolerance: Fraction) -> Comparison:
    """How numbers are compared under this question (see `comparing.Comparison`)."""
    text = question.lower()
    quantity = _ASKS_QUANTITY.search(text)
    counting = bool(_COUNTS.search(text) and not _COUNTS_UNITS.search(text))
    abroad = bool(_OTHER_LANGUAGE.search(text))
    of_year = _SPEAKS_OF_YEAR.search(text)
    year = True if _ASKS_YEAR.search(text) or (of_year and not quantity) else None
    return Comparison(
        tolerance=tolerance,
        counting=None if not counting and abroad else counting,
        year=False if quantity and not of_year and not _MAY_BE_YEAR.search(text) else year,
        exact=bool(_EXACT.search(text)),
        percent=bool(re.search(r"percent|%|per cent", text)),
        scale=SCALES[scale[1]] if (scale := _ASKS_SCALE.search(text)) else 1,
        falling=bool(_SPEAKS_OF_CHANGE.search(text)),
        heat=abroad or bool(_SPEAKS_OF_HEAT.search(text)),
        units=_units_asked(question),
        words=stems(text),
    )


def _units_asked(question: str) -> frozenset[tuple[str, Fraction]]:
    """The units of "in cm", "how many square feet", "(km/h)" and the like."""
    words = re.findall(r"[^\s,;:?!()]+|\(", plain(question))
    found: list[tuple[str, Fraction]] = []
    for at, word in enumerate(words, 1):
        if word.lower() in ("in", "many", "(") or " ".join(words[max(0, at - 2) : at]).lower() == "number of":
            following = [" ".join(words[at : at + count]) for count in (3, 2, 1)]
            read = (units_of(text) for text in following if not re.fullmatch(r"in|[A-Z]", text))  # "in total", "(A)"
            found += next(filter(None, read), [])
    return frozenset(found)


_GENERAL = stems(
    "a about all altogether an and answer are at average between by chart correct count counted data difference figure "
    "final for from given graph has have i image in is it mean median number of on overall picture ratio reading "
    "result shown so sum table that the their there therefore they this those thus to total value was were we "
    "which with"
)


_HEDGE = re.compile(
    r"(?i)\b(?:not|no|never|neither|nor|if|or|either|maybe|perhaps|might|may|could|cannot|can't|isn't|aren't|wasn't|"
    r"between|than|least|most|over|under|except|wrong|incorrect|but|however|unless|would|unlike|rather|instead|"
    r"assuming|suppose)\b"
)
_SENTENCE = re.compile(
    r"(?is)^(?P<subject>[^\d\n]{1,160}?)(?:\b(?:is|are|was|were|equals|has|have|had|costs|cost|totals|scored)\b|=|:)\s*"
    r"(?:(?:equal|up|down)?\s*to\s+)?(?P<value>\S.{0,79})$"
)
_LEAD = re.compile(
    r"(?is)^(?:(?:in\s+)?(?:(?:the\s+)?year\s+)?(?=\d{4}$)|(?:[\d\s.,+\-*/\u00d7\u00f7()%$^]{1,160}|[A-Z]\s*)=\s*)"
    r"(?P<value>[^=]{1,80})$"
)


def stated(text: str, how: Comparison) -> tuple[numbers.Quantity, ...]:
    """The text as a quantity, alone or after "in the year", a sum ("2 + 3 = 5") or a sentence ("The total is 5 kg").

    A sentence's subject may have no word that the question has not, but for the most general.
    """
    if found := numbers.read(text):
        return found
    if match := _LEAD.match(text):
        return numbers.read(match["value"].strip())
    match = _SENTENCE.match(text)
    if match is None or _HEDGE.search(match["subject"]) or not stems(match["subject"]) <= how.words | _GENERAL:
        return ()
    return numbers.read(match["value"].strip())


def order_counts(question: str) -> bool:
    """Whether the question may ask for a list in a certain order."""
    return bool(_ORDERED.search(question.lower()))


def may_be_no_fraction(question: str, text: str) -> bool:
    """Whether a text such as 11/12 or 2020/2021 may be a date, a season or a score under this question."""
    return bool(re.fullmatch(r"\d+\s?/\s?\d+", text) and _SLASHED_NAMES.search(question.lower()))
