"""How the weights of the embedded models are made: `python -m tools.tiny.recipe` (`make tiny`)."""
