"""The parts of `benchmarks/build_speed.py`: the work, the model server, the ideal schedule, and the two clients."""
