"""Models: a conversation in, replies out; and what a model folder on disk holds.

Knows servers, engines and weights; knows no prompt, no question and no run.
Start at `openai/model.py` (a server), `hf/model.py` (in process) or `vllm/model.py` (a server of our own).
"""
