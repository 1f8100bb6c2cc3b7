"""The embedded model and its world: charts to ask about, a small vision model, a scorer that knows the truth.

Nothing heavy is imported here. The weights lie in `weights/`; `insightv.backends.model_folder` knows their names.
"""
