"""Whether an answer is the truth, by rules alone: text, numbers, units, dates, choices, mathematics.

Knows two texts and the question; knows no model and nothing else of insightv. Start at `decide.py`.
"""
