"""`python -m insightv.cli`."""

from insightv.cli.main import main

main()
