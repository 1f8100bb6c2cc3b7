"""Models behind a `vllm serve` that insightv starts, watches and stops: `model.py`, then `supervisor.py`."""

from insightv.backends.vllm.model import vllm

__all__ = ["vllm"]
