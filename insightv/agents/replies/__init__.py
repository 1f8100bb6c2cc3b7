"""Replies of models: one JSON object, a path as text, and asking again until a reply can be read.

Knows text; knows no prompt and no agent. Start at `json_reply.py`.
"""
