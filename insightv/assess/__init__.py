"""Is this path good? The answer check, the score of a path, and the band that follows from them."""
