"""Prompts, and the grammar of the replies to them: the generator and the two agents."""
