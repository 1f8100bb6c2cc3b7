"""The real server over a model that takes 10 ms for a question, in a process of its own; prints its address.

python benchmarks/quick_server.py                     # ends on SIGTERM, as `insightv serve` does
python benchmarks/quick_server.py --held-back         # with the listening socket of before: no TCP_NODELAY
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import sys
from collections.abc import Sequence

from insightv import ChatModel, Completion, Message, Reasoner, Sampling
from insightv.config.sections import ServeSection
from insightv.inputs.images import DEFAULT_LIMITS
from insightv.records import Schema, Usage
from insightv.server import listen

MODEL_S = 0.010
THOUGHTS = "<thoughts>\n### Look\nThe bar B ends at 7.\n### Compare\nNo other bar is as tall.\n</thoughts>"


class Quick(ChatModel):
    """Both agents' model: half of the time for the path, half for the answer."""

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        """The same path and the same answer for every question."""
        await asyncio.sleep(MODEL_S / 2)
        text = "B" if "REASONING" in str(messages[-1].content) else THOUGHTS
        return [Completion(text=text, usage=Usage(prompt_tokens=100, completion_tokens=20, requests=1))]


def held_back(limits: ServeSection) -> socket.socket:
    """A listening socket whose protocol is 0, so that asyncio does not set TCP_NODELAY on what it accepts."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.bind((limits.host, limits.port))
    bound.listen(listen.BACKLOG)
    return bound


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--held-back", action="store_true")
    if parser.parse_args().held_back:
        listen.listen = held_back
    logging.getLogger("insightv.access").setLevel(logging.WARNING)

    def ready(url: str) -> None:
        print(url, flush=True)

    async def serve() -> int:
        reasoner = Reasoner.of(Quick())
        return await listen.serve(reasoner, ServeSection(port=0), max_pixels=DEFAULT_LIMITS.max_pixels, ready=ready)

    sys.exit(128 + asyncio.run(serve()))


if __name__ == "__main__":
    main()
