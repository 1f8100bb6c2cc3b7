"""Your own reasoning agent, and a model behind an API as the summary agent.

python answer.py runs/demo MODEL BASE_URL chart.png "Which bar is tallest?"

The key of the API is read from OPENAI_API_KEY.
"""

import sys

from insightv import Reasoner


def main(run, model, base_url, image, question):
    with Reasoner.load(run) as trained, Reasoner.of(f"openai/{model}", base_url=base_url) as api:
        mixed = Reasoner(trained.reasoning_agent, api.summary_agent)
        answer = mixed.answer(image, question)
        for step in answer.path.steps:
            print(f"{step.title}: {step.content}")
        print("answer:", answer.text)


if __name__ == "__main__":
    main(*sys.argv[1:6])
