"""Prompts, and the replies that they are answered with: the generator, the reasoning and the summary agent.

Knows prompts and the grammar of replies; knows no server and no run, and judges nothing.
Start at `generator.py` (where a path is made) and `replies/json_reply.py` (where a reply is parsed).
"""
