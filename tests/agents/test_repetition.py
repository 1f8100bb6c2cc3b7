import pytest

from insightv.agents.repetition import Said

LONG = (
    "The blue bar above May ends exactly at the grid line for forty, the orange bar above June ends half way between "
    "the lines for twenty and thirty, and the green bar above July is clearly the lowest of the three bars in this "
    "chart, so its value is below that of both the blue one and the orange one."
)


@pytest.mark.parametrize(
    ("text", "earlier", "expected"),
    [
        ("Red is 5.", "Red is 5.", True),
        ("Red is 5", "red  IS 5.", True),
        ("Red is 5.", "Red is 6.", False),
        ("Red is 5.", "Blue is 5.", False),
        ("a + b = c", "a - b = c", False),
        ("Then x.", "So x.", False),
        ("\u7ea2\u8272\u6700\u9ad8\u3002", "\u7ea2\u8272\u6700\u9ad8\u3002", True),
        ("\u2713", "\u2713", True),
        ("\u2713", "\u2717", False),
        (LONG, LONG, True),
        (LONG.replace("clearly", "obviously"), LONG, True),
        ("So " + LONG, LONG, True),
        (LONG + " 12", LONG + " 13", False),
        (LONG.replace("blue", "red").replace("June", "April").replace("lowest", "highest"), LONG, False),
        (LONG[: len(LONG) // 2], LONG, False),
    ],
)
def test_says_again(text: str, earlier: str, expected: bool) -> None:
    assert Said(text).again(Said(earlier)) is expected
    assert Said(earlier).again(Said(text)) is expected
