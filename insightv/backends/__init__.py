"""Model input and output, and nothing else: no prompt, no run."""
