"""Programs for those who work on insightv: figures of its structure, and the making of the embedded weights."""
