"""What the log of a `vllm serve` that did not start says, in one sentence with its cure."""

from __future__ import annotations

import re

from insightv.child_processes import how_ended
from insightv.redact import Redactor

_TAIL_BYTES = 1500

_MEMORY = (
    "give it less to hold (in `arguments`: --max-model-len, --gpu-memory-utilization, --tensor-parallel-size, "
    "--quantization), or free the memory that other programs use"
)
_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        r"unrecognized arguments: [^\n]*|error: argument [^\n]*",
        "vllm does not take its arguments",
        "correct `arguments`",
    ),
    (
        r"Model architectures [^\n]*? are not supported[^\n]*|does not recognize this architecture",
        "this vLLM does not know the model's architecture",
        "use a newer vLLM, or serve the model in another way (openai/... with base_url, or hf/...)",
    ),
    (
        r"no module or parameter named [^\n]*",
        "the model's weights do not carry the names that vLLM looks for",
        "save the model with the version of transformers that this vLLM asks for",
    ),
    (
        r"[^\n]*(?:out of memory|OutOfMemoryError|No available memory for the cache blocks|desired GPU memory "
        r"utilization|KV cache is needed, which is larger|Cannot allocate memory|not enough memory)[^\n]*",
        "there is not enough memory",
        _MEMORY,
    ),
    (
        r"LoRA rank \d+ is greater than[^\n]*|LoRAAdapterNotFoundError[^\n]*|[^\n]*unexpected modules[^\n]*",
        "an adapter cannot be loaded",
        "serve the merged model, or train the adapter for the language model's linear layers only",
    ),
    (r"[^\n]*[Aa]ddress already in use[^\n]*", "its port was taken by another program", "start again"),
    (
        r"[^\n]*(?:is not a local folder and is not a valid model|couldn't connect to|Repo id must|"
        r"Invalid repository ID or local directory)[^\n]*",
        "the model cannot be found",
        "name a model directory that exists, or a model of the hub that this machine can reach",
    ),
    (
        r"(?:ImportError|ModuleNotFoundError|OSError): [^\n]*\.so[^\n]*|No module named[^\n]*|"
        r"Failed to infer device type[^\n]*",
        "vLLM itself does not work on this machine",
        "repair its environment, or name another by `program`",
    ),
)
_RAISED = re.compile(r"\b\w*(?:Error|Exception): [^\n]+")
CONNECTOR_REFUSED = re.compile(r"Disabling `enable_tower_connector_lora`|tower connector is enabled, but the model")
"""vLLM continues without the part of an adapter that is not in the language model: it would answer as another model."""


def why(text: str, code: int | None) -> str:
    """Why it did not start, from the text of its log and its exit code (negative: the signal)."""
    redactor = Redactor()
    for pattern, meaning, cure in _KNOWN:
        found = re.search(pattern, text)
        if found:
            return f"{meaning}: {redactor.clean(found[0].strip(), 400)!r}; {cure}"
    if code == -9:
        return f"it {how_ended(code)}: {_MEMORY}"
    root = next((line for line in _RAISED.findall(text) if "initialization failed" not in line), None)
    if root is not None:
        return f"it failed with {redactor.clean(root.strip(), 400)!r}"
    return f"it {how_ended(code)}; the end of its log:\n{tail(text)}"


def tail(text: str) -> str:
    """The last lines of a log, without control codes and secrets."""
    redactor = Redactor()
    lines = [redactor.clean(line, 300) for line in text[-4 * _TAIL_BYTES :].splitlines()]
    return "\n".join(lines)[-_TAIL_BYTES:]
