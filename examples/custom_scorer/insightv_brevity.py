"""An insightv scorer: 100 for a path of at most `words` words, fewer points the longer it is."""

from insightv import Score, Scorer, hookimpl


class Brevity(Scorer):
    def __init__(self, words=60):
        self.words = words

    async def score(self, question, paths):
        return [self.judge(path) for path in paths]

    def judge(self, path):
        length = sum(len(step.content.split()) for step in path.steps)
        value = max(1, min(100, 100 * self.words / max(length, 1)))
        return Score(scorer="brevity", value=value, reason=f"{length} words")


@hookimpl
def register_scorers(register):
    register("brevity", Brevity)
