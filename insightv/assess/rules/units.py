"""Units that answers come in: what they measure, and how they convert. Case counts: mW is not MW.

`UNITS[name]` is (dimension, factor to that dimension's own unit). `SCALES` are words that multiply a number.
"""

from __future__ import annotations

import re
from fractions import Fraction

UNITS: dict[str, tuple[str, Fraction]] = {}
"""Every spelling known, by exact spelling first; words are looked up in lower case."""

SCALES: dict[str, int] = {
    "dozen": 12,
    "hundred": 10**2,
    "thousand": 10**3,
    "lakh": 10**5,
    "million": 10**6,
    "mn": 10**6,
    "mln": 10**6,
    "mio": 10**6,
    "crore": 10**7,
    "billion": 10**9,
    "bn": 10**9,
    "trillion": 10**12,
    "tn": 10**12,
}

LETTER_SCALES: dict[str, int] = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}

SCALES_ABROAD = re.compile(
    r"(?i)mil(?:a|l?e|l?i[oa].*|lon.*|h[oõãa].*)?$|tausend|duizend|tusen|tysi|тыс|мил|млн|млрд|.*[百千万萬億亿兆만억천]"
)
"""Words of other languages that multiply a number as those of `SCALES` do, by how they begin or what they end in."""

CURRENCIES: dict[str, str] = {
    "$": "dollar",
    "us$": "dollar",
    "usd": "dollar",
    "dollar": "dollar",
    "dollars": "dollar",
    "us dollars": "dollar",
    "u.s. dollars": "dollar",
    "€": "euro",
    "eur": "euro",
    "euro": "euro",
    "euros": "euro",
    "£": "pound sterling",
    "gbp": "pound sterling",
    "¥": "yen",
    "jpy": "yen",
    "yen": "yen",
    "₹": "rupee",
    "inr": "rupee",
    "rs": "rupee",
    "rupees": "rupee",
    "cny": "yuan",
    "rmb": "yuan",
    "yuan": "yuan",
    "chf": "franc",
    "krw": "won",
    "₩": "won",
}

PERCENT = ("%", "percent", "per cent", "pct", "percentage")

TEMPERATURES = frozenset({"celsius", "fahrenheit", "kelvin", "angle"})
"""Scales that do not convert by a factor, and the bare degree, which may mean any of them."""

_PREFIXES = {"n": -9, "µ": -6, "μ": -6, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12}
_METRIC = {
    "m": "length",
    "g": "mass",
    "s": "time",
    "W": "power",
    "Wh": "energy",
    "Hz": "frequency",
    "J": "energy",
    "N": "force",
    "Pa": "pressure",
    "V": "voltage",
    "A": "current",
    "Ω": "resistance",
    "L": "volume",
    "l": "volume",
    "mol": "amount",
}
_OWN_FACTOR = {"g": Fraction(1, 1000), "Wh": Fraction(3600), "L": Fraction(1, 1000), "l": Fraction(1, 1000)}
_OTHERS: dict[str, tuple[str, str | int]] = {
    "cm dm centimeter centimetre decimeter decimetre": ("length", ""),
    "in inch inches": ("length", "0.0254"),
    "ft foot feet": ("length", "0.3048"),
    "yd yard yards": ("length", "0.9144"),
    "mi mile miles": ("length", "1609.344"),
    "t tonne tonnes ton tons": ("mass", 1000),
    "lb lbs pound pounds": ("mass", "0.45359237"),
    "oz ounce ounces": ("mass", "0.028349523125"),
    "kilo kilos kgs": ("mass", 1),
    "sec secs second seconds": ("time", 1),
    "s^2 s2": ("time^2", 1),
    "min mins minute minutes": ("time", 60),
    "h hr hrs hour hours": ("time", 3600),
    "d day days": ("time", 86400),
    "week weeks wk wks": ("time", 604800),
    "month months": ("months", 1),
    "yr yrs year years": ("months", 12),
    "decade decades": ("months", 120),
    "century centuries": ("months", 1200),
    "cal": ("energy", "4.184"),
    "kcal": ("energy", 4184),
    "ohm ohms": ("resistance", 1),
    "°C C celsius": ("celsius", 1),
    "°F F fahrenheit": ("fahrenheit", 1),
    "K kelvin": ("kelvin", 1),
    "° deg degree degrees": ("angle", 1),
    "rad radian radians": ("radian", 1),
    "ha hectare hectares": ("area", 10000),
    "acre acres": ("area", "4046.8564224"),
    "mph": ("length/time", "0.44704"),
    "kph kmh kmph": ("length/time", "5/18"),
    "bit bits": ("data", "0.125"),
    "byte bytes": ("data", 1),
    "KB kB": ("data", 1000),
    "MB": ("data", 10**6),
    "GB": ("data", 10**9),
    "TB": ("data", 10**12),
    "times fold": ("times", 1),
    "pp": ("points", 1),
}
_LENGTHS = {
    "mm": "0.001",
    "cm": "0.01",
    "dm": "0.1",
    "m": "1",
    "km": "1000",
    "in": "0.0254",
    "ft": "0.3048",
    "yd": "0.9144",
    "mi": "1609.344",
    "millimeter": "0.001",
    "centimeter": "0.01",
    "meter": "1",
    "kilometer": "1000",
    "inch": "0.0254",
    "foot": "0.3048",
    "yard": "0.9144",
    "mile": "1609.344",
}
_WORDS = {"meter": "m", "metre": "m", "gram": "g", "liter": "L", "litre": "L", "watt": "W", "volt": "V", "joule": "J",
          "hertz": "Hz", "newton": "N", "pascal": "Pa", "amp": "A", "ampere": "A", "second": "s"}  # fmt: skip
_WORD_PREFIXES = {"": 0, "nano": -9, "micro": -6, "milli": -3, "centi": -2, "deci": -1, "kilo": 3, "mega": 6, "giga": 9}


def _fill() -> None:
    for symbol, dimension in _METRIC.items():
        own = _OWN_FACTOR.get(symbol, Fraction(1))
        UNITS[symbol] = (dimension, own)
        for prefix, power in _PREFIXES.items():
            UNITS[prefix + symbol] = (dimension, own * Fraction(10) ** power)
    for word, symbol in _WORDS.items():
        for prefix, power in _WORD_PREFIXES.items():
            dimension, own = UNITS[symbol]
            UNITS[f"{prefix}{word}"] = UNITS[f"{prefix}{word}s"] = (dimension, own * Fraction(10) ** power)
    for name in ("cl", "cL"):
        UNITS[name] = ("volume", Fraction(1, 100000))
    for names, (dimension, factor) in _OTHERS.items():
        for name in names.split():
            if factor != "":
                UNITS[name] = (dimension, Fraction(factor))
    for name, length in _LENGTHS.items():
        meters = Fraction(length)
        UNITS.setdefault(name, ("length", meters))
        plurals = {name, name + "s", {"inch": "inches", "foot": "feet"}.get(name, name)}
        for spelling in plurals:
            for power, dimension, words in ((2, "area", ("square", "sq")), (3, "volume", ("cubic", "cu"))):
                UNITS[f"{spelling}^{power}"] = (dimension, meters**power)
                for word in words:
                    UNITS[f"{word} {spelling}"] = (dimension, meters**power)
    for spelling in ("metre", "metres", "kilometre", "kilometres", "centimetre", "centimetres"):
        american = spelling.replace("metre", "meter")
        for word in ("square", "cubic"):
            UNITS[f"{word} {spelling}"] = UNITS[f"{word} {american}"]
    for name in ("m2", "cm2", "mm2", "km2", "m3", "cm3", "mm3", "km3"):
        UNITS[name] = UNITS[f"{name[:-1]}^{name[-1]}"]
    for name in ("degrees celsius", "degree celsius", "deg c", "° c"):
        UNITS[name] = UNITS["celsius"]
    for name in ("degrees fahrenheit", "degree fahrenheit", "deg f", "° f"):
        UNITS[name] = UNITS["fahrenheit"]
    for name in ("percentage points", "percentage point", "percent points"):
        UNITS[name] = UNITS["pp"]


_fill()


def unit_of(text: str) -> tuple[str, Fraction] | None:
    """The dimension and factor of a unit as written, or None where it is not known."""
    text = text.strip().rstrip(".")
    if text in UNITS:
        return UNITS[text]
    low = text.lower()
    if low in CURRENCIES:
        return f"money: {CURRENCIES[low]}", Fraction(1)
    if low in PERCENT:
        return "percent", Fraction(1)
    parts = re.split(r"\s+per\s+|\s*/\s*", text)
    if len(parts) == 2:
        above, below = unit_of(parts[0]), unit_of(parts[1])
        return (f"{above[0]}/{below[0]}", above[1] / below[1]) if above and below else None
    # A symbol of one or two letters means something else in the other case; a word does not.
    return UNITS.get(low) if len(low) > 2 and low not in ("mw", "mhz") else None


def units_of(text: str) -> list[tuple[str, Fraction]]:
    """What a unit as written may be: pounds are weighed or paid."""
    unit = unit_of(text)
    if unit is None:
        return []
    return [unit, ("money: pound sterling", Fraction(1))] if text.lower() in ("pound", "pounds") else [unit]
