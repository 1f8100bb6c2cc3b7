"""Models held outside this process: by processes of this machine, or by Ray on several.

Knows calls and workers; knows no run. Start at `pool.py`, then `worker.py` for what each worker does.
"""
