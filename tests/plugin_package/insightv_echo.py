"""A scorer that counts words and a backend that says back what it was told: a plugin as a stranger would write one."""

# ruff: noqa: ANN001, ANN201, ANN204 - types are optional for a plugin

import json

from insightv import ChatModel, Completion, Score, Scorer, Usage, hookimpl


class WordCount(Scorer):
    """A path's words as its value, at most `most`."""

    def __init__(self, most=100):
        self.most = most

    async def score(self, question, paths):
        lengths = [sum(len(step.content.split()) for step in path.steps) for path in paths]
        return [Score(scorer="wordcount", value=max(1, min(self.most, n)), reason=f"{n} words") for n in lengths]


class Echo(ChatModel):
    """Echoes the conversation: a step per turn, a conclusion at the second, and `answer` in the end."""

    def __init__(self, model="", answer="yes"):
        self.answer = answer

    async def chat(self, messages, sampling, *, n=1, schema=None):
        said = " ".join(part for part in messages[1].parts if isinstance(part, str)) if len(messages) > 1 else ""
        turn = sum(message.role == "assistant" for message in messages)
        if schema is None:
            text = next((part for part in reversed(messages[-1].parts) if isinstance(part, str)), "")
        elif schema.name == "reasoning_step":
            thought = f"The question is: {said}" if turn == 0 else f"Nothing else was said, so it is {self.answer}."
            action = "summary" if turn else "continue"
            text = json.dumps({"title": f"Step {turn + 1}", "content": thought, "action": action})
        elif schema.name == "final_answer":
            text = json.dumps({"answer": self.answer})
        else:
            raise ValueError(f"echo cannot answer {schema.name}")
        spent = Usage(prompt_tokens=len(said.split()), completion_tokens=len(text.split()), requests=1)
        return [Completion(text=text, usage=spent if i == 0 else Usage()) for i in range(n)]


@hookimpl
def register_scorers(register):
    register("wordcount", WordCount)


@hookimpl
def register_backends(register):
    register("echo", Echo)
