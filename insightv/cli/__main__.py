"""`python -m insightv.cli`."""

from insightv.cli.main import main

if __name__ == "__main__":
    main()
