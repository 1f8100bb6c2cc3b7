"""Watch the reasoning arrive in a terminal.

python stream.py runs/demo chart.png "Which bar is tallest?"
"""

import asyncio
import sys

from insightv import Reasoner
from insightv.events import AnswerDone, AnswerText, PathDone, StepStarted, StepText


async def main(run, image, question):
    reasoner = Reasoner.load(run)
    try:
        async for event in reasoner.astream(image, question):
            match event:
                case StepStarted(number=number, title=title):
                    print(f"\n\n{number}. {plain(title)}", flush=True)
                case StepText(text=text) | AnswerText(text=text):
                    print(plain(text), end="", flush=True)
                case PathDone():
                    print("\n\n=> ", end="", flush=True)
                case AnswerDone(answer=answer):
                    spent = answer.usage.prompt_tokens + answer.usage.completion_tokens
                    verdict = {True: "followed", False: "overruled", None: "not comparable"}[answer.followed]
                    print(f"\n\nreasoning: {verdict}; {spent} tokens")
    finally:
        await reasoner.aclose()


def plain(text):
    """What a model writes may hold control codes; a terminal must not see them."""
    return "".join(c for c in text if c.isprintable() or c == "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
