"""The parts that come with insightv, registered through the same hooks as anyone's and imported on use."""

from __future__ import annotations

from insightv.plugins import Register, hookimpl


@hookimpl
def register_backends(register: Register) -> None:
    """Model input and output."""
    register("openai", "insightv.backends.openai.factory:openai")
    register("hf", "insightv.backends.hf.model:HFModel")
    register("vllm", "insightv.backends.vllm.model:vllm")
    register("tiny", "insightv.tiny.backend:tiny")
    register("replay", "insightv.backends.replay:replay")


@hookimpl
def register_generators(register: Register) -> None:
    """Writers of paths."""
    register("progressive", "insightv.agents.generator:ProgressiveGenerator")


@hookimpl
def register_scorers(register: Register) -> None:
    """Judges of paths."""
    register("answer", "insightv.assess.answer:AnswerScorer")
    register("path", "insightv.assess.path:PathScorer")
    register("chart-steps", "insightv.tiny.chart_steps:ChartSteps")


@hookimpl
def register_trainers(register: Register) -> None:
    """Trainers on preference pairs."""
    register("dpo", "insightv.train.finetune.dpo_role:DPOPreferenceTrainer")


@hookimpl
def register_agents(register: Register) -> None:
    """The two agents, a reasoner that steps through JSON as the generator does, and models that work alone."""
    register("steps", "insightv.agents.adapters:stepwise")
    register("thoughts", "insightv.agents.reasoning:ThoughtsReasoner")
    register("summary", "insightv.agents.summary:JudgingSummary")
    register("direct", "insightv.agents.baselines:DirectAnswer")
    register("direct-cot", "insightv.agents.baselines:DirectCot")
    register("multi-turn", "insightv.agents.baselines:MultiTurn")
