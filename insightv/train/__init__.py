"""From assessed paths to two trained agents: data sets, stages, rounds of DPO, checkpoints.

Knows what is trained on what; torch and TRL stand in `finetune/` alone, and `data/` knows no run.
Start at `stages.py` (where a stage is trained), then `dpo_round.py`, `data/sets.py` and `finetune/fit.py`.
"""
