"""Units that answers come in: what they measure, and how they convert. Case counts: mW is not MW.

`UNITS[name]` is (dimension, factor to that dimension's own unit). `SCALES` are words that multiply a number.
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import product

SCALES: dict[str, int] = (
    {"dozen": 12, "hundred": 10**2, "thousand": 10**3, "lakh": 10**5, "crore": 10**7}
    | dict.fromkeys(("million", "mn", "mln", "mio"), 10**6)
    | dict.fromkeys(("billion", "bn"), 10**9)
    | dict.fromkeys(("trillion", "tn"), 10**12)
)

LETTER_SCALES: dict[str, int] = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}

SCALES_ABROAD = re.compile(
    r"(?i)mil(?:a|l?e|l?i[oa].*|lon.*|h[oõãa].*)?$|tausend|duizend|tusen|tysi|тыс|мил|млн|млрд|.*[百千万萬億亿兆만억천]"
)
"""Words of other languages that multiply a number as those of `SCALES` do, by how they begin or what they end in."""

_CURRENCIES = """
$ us$ usd dollar dollars us_dollars u.s._dollars: dollar; € eur euro euros: euro; £ gbp: pound sterling
¥ jpy yen: yen; ₹ inr rs rupees: rupee; cny rmb yuan: yuan; chf: franc; krw ₩: won
"""
PERCENT = ("%", "percent", "per cent", "pct", "percentage")

TEMPERATURES = frozenset({"celsius", "fahrenheit", "kelvin", "angle"})
"""Scales that do not convert by a factor, and the bare degree, which may mean any of them."""

_PREFIXES = {"": 0, "n": -9, "µ": -6, "μ": -6, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12}
_METRIC = """
m: length 1; g: mass 0.001; s: time 1; W: power 1; Wh: energy 3600; Hz: frequency 1; J: energy 1; N: force 1
Pa: pressure 1; V: voltage 1; A: current 1; Ω: resistance 1; L l: volume 0.001; mol: amount 1
"""
_WORD_PREFIXES = {"": 0, "nano": -9, "micro": -6, "milli": -3, "centi": -2, "deci": -1, "kilo": 3, "mega": 6, "giga": 9}
_METRIC_WORDS = """
meter metre: length 1; gram: mass 0.001; liter litre: volume 0.001; watt: power 1; volt: voltage 1; joule: energy 1
hertz: frequency 1; newton: force 1; pascal: pressure 1; amp ampere: current 1; second: time 1
"""
_LENGTHS = """
mm millimeter millimeters: length 0.001; cm centimeter centimeters centimetre centimetres: length 0.01; dm: length 0.1
m meter meters metre metres: length 1; km kilometer kilometers kilometre kilometres: length 1000
in inch inches: length 0.0254; ft foot feet: length 0.3048; yd yard yards: length 0.9144
mi mile miles: length 1609.344
"""
_OTHERS = """
cl cL: volume 0.00001; t tonne tonnes ton tons: mass 1000; lb lbs pound pounds: mass 0.45359237
oz ounce ounces: mass 0.028349523125; kilo kilos kgs: mass 1; sec secs second seconds: time 1; s^2 s2: time^2 1
min mins minute minutes: time 60; h hr hrs hour hours: time 3600; d day days: time 86400
week weeks wk wks: time 604800; month months: months 1; yr yrs year years: months 12; decade decades: months 120
century centuries: months 1200; cal: energy 4.184; kcal: energy 4184; ohm ohms: resistance 1
°C C celsius degrees_celsius degree_celsius deg_c °_c: celsius 1
°F F fahrenheit degrees_fahrenheit degree_fahrenheit deg_f °_f: fahrenheit 1; K kelvin: kelvin 1
° deg degree degrees: angle 1; rad radian radians: radian 1; ha hectare hectares: area 10000
acre acres: area 4046.8564224; mph: length/time 0.44704; kph kmh kmph: length/time 5/18; bit bits: data 0.125
byte bytes: data 1; KB kB: data 1000; MB: data 1000000; GB: data 1000000000; TB: data 1000000000000
times fold: times 1; pp percentage_points percentage_point percent_points: points 1
"""


def _lines(table: str) -> list[tuple[list[str], str]]:
    """The names and the meaning of each entry of a table; "_" in a name is a space."""
    parts = [entry.split(": ") for entry in re.split(r"; |\n", table.strip())]
    return [([name.replace("_", " ") for name in names.split()], meaning) for names, meaning in parts]


def _read(table: str, prefixes: dict[str, int], endings: tuple[str, ...] = ("",)) -> dict[str, tuple[str, Fraction]]:
    found: dict[str, tuple[str, Fraction]] = {}
    for names, meaning in _lines(table):
        dimension, factor = meaning.split()
        for prefix, name, ending in product(prefixes, names, endings):
            found[prefix + name + ending] = (dimension, Fraction(factor) * Fraction(10) ** prefixes[prefix])
    return found


def _powers() -> dict[str, tuple[str, Fraction]]:
    """Areas and volumes of each length: "m^2", "m2", "square metre", "sq m"."""
    found: dict[str, tuple[str, Fraction]] = {}
    for name, (_, meters) in _read(_LENGTHS, {"": 0}).items():
        for power, dimension, words in ((2, "area", ("square ", "sq ")), (3, "volume", ("cubic ", "cu "))):
            spellings = [f"{name}^{power}", f"{name}{power}", *(word + name for word in words)]
            found |= dict.fromkeys(spellings, (dimension, meters**power))
    return found


CURRENCIES: dict[str, str] = {name: meaning for names, meaning in _lines(_CURRENCIES) for name in names}

UNITS: dict[str, tuple[str, Fraction]] = (
    _read(_METRIC, _PREFIXES)
    | _read(_METRIC_WORDS, _WORD_PREFIXES, ("", "s"))
    | _read(_LENGTHS, {"": 0})
    | _powers()
    | _read(_OTHERS, {"": 0})
)
"""Every spelling known, by exact spelling first; words are looked up in lower case."""


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
