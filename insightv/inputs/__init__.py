"""Questions and images: any source in, checked records out.

Knows file formats, pictures and their limits; knows no model, no run and no plugin.
Start at `questions.py` (`read_questions`), then `rows.py` for one row and `images.py` for one picture.
"""
