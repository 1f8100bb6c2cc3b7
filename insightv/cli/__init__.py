"""The command line: a module for each group of commands, and what they print.

Knows options, exit codes and the terminal; decides nothing else. Start at `main.py`.
"""

from insightv.cli.main import main

__all__ = ["main"]
