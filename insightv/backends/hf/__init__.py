"""Models run in this process by transformers: `model.py` takes calls, `engine.py` runs them in batches."""

from insightv.backends.hf.model import HFModel

__all__ = ["HFModel"]
