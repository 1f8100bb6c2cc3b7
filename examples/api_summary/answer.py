"""Your own reasoning agent, and a model behind an API as the summary agent.

python answer.py runs/demo MODEL BASE_URL chart.png "Which bar is tallest?"

The key of the API is read from OPENAI_API_KEY.
"""

import sys

from insightv import Reasoner
from insightv.agents.summary import JudgingSummary
from insightv.backends.openai.factory import openai


def main(run, model, base_url, image, question):
    reasoner = Reasoner.load(run)
    judge = openai(model, base_url=base_url)
    mixed = Reasoner(reasoner.reasoning_agent, JudgingSummary(judge), models=(judge,))
    try:
        answer = mixed.answer(image, question)
        for step in answer.path.steps:
            print(f"{step.title}: {step.content}")
        print("answer:", answer.text)
    finally:
        mixed.close()
        reasoner.close()


if __name__ == "__main__":
    main(*sys.argv[1:6])
