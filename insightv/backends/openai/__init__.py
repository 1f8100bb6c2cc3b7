"""Models behind an OpenAI-compatible HTTP server: `openai` is the factory, `model.py` one call with its tries."""

from insightv.backends.openai.factory import openai

__all__ = ["openai"]
