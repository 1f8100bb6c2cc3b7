"""Dates: what is read, and what could be two dates is not."""

from __future__ import annotations

import pytest

from insightv.assess.rules.dates import Date, read_date, same_date


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 March 2010", (2010, 3, 5)),
        ("March 5, 2010", (2010, 3, 5)),
        ("Mar. 5th, 2010", (2010, 3, 5)),
        ("on the 5th of March 2010", (2010, 3, 5)),
        ("Friday, March 5, 2010", (2010, 3, 5)),
        ("05-Mar-2010", (2010, 3, 5)),
        ("2010-03-05", (2010, 3, 5)),
        ("2010/3/5", (2010, 3, 5)),
        ("25.12.2010", (2010, 12, 25)),
        ("12/25/2010", (2010, 12, 25)),
        ("5/5/2010", (2010, 5, 5)),
        ("Sept 2010", (2010, 9, None)),
        ("in January 2010", (2010, 1, None)),
        ("03/05/2010", None),
        ("2010", None),
        ("March 5", None),
        ("February 30, 2010", None),
        ("2010-13-05", None),
        ("Marvellous 5, 2010", None),
        ("March 5, 2010 or later", None),
        ("", None),
    ],
)
def test_a_date_is_read_where_it_can_be_only_one(text: str, expected: Date | None) -> None:
    assert read_date(text) == expected


def test_a_day_and_its_month_are_neither_the_same_nor_different() -> None:
    assert same_date((2010, 3, 5), (2010, 3, None)) is None
    assert same_date((2010, 3, 5), (2010, 4, None)) is False
    assert same_date((2010, 3, None), (2010, 3, None)) is True
