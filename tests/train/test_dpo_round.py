"""What a round is judged by, and how its ledger's entry reads."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from insightv.agents.replies.transcript import TAGS
from insightv.backends.checkpoints import identity_of, is_complete, mark, read_marker
from insightv.cli.status_table import accuracy, stage_lines
from insightv.concurrency import blocking
from insightv.config.plugin_loading import default_registry
from insightv.config.settings import Settings, check_settings
from insightv.errors import ConfigError, InputError, Interrupted, PluginError
from insightv.evaluate.results import Graded, Outcome, Result
from insightv.interfaces import PreferenceTrainer
from insightv.plugins import Registry
from insightv.reasoner.checkpoint_agents import trained_folders
from insightv.records import PreferencePair, ReasoningPath
from insightv.runs.reader import DATABASE
from insightv.runs.schema import open_database
from insightv.runs.stage_facts import Drift, Ends, Margins, StageFacts, StageId
from insightv.runs.stage_ledger import Entry, Ledger
from insightv.train.dpo_round import Round, drift_of, evidence, hurts, margins, placed, trainer_of
from insightv.train.finetune.dpo_role import DPOPreferenceTrainer
from insightv.train.publish import publish
from insightv.train.rollouts import Rollouts

RIGHT: tuple[Outcome, ...] = ("right",)
WRONG: tuple[Outcome, ...] = ("wrong",)


def result(outcomes: Sequence[Outcome]) -> Result:
    rows = tuple(Graded(id=f"q{i}", digest="d", outcome=outcome, truth="1") for i, outcome in enumerate(outcomes))
    return Result(
        system="reasoning-only", name="reasoning-only-1", data="held", seed=0, models={}, grading={}, rows=rows
    )


def entry(name: str, facts: StageFacts) -> Entry:
    return Entry(StageId(name), {}, True, facts, 0, 1)


def verdict(worse: int, better: int, p: float = 0.05) -> bool:
    before: list[Outcome] = [*RIGHT * worse, *WRONG * better, *RIGHT * 20]
    after: list[Outcome] = [*WRONG * worse, *RIGHT * better, *RIGHT * 20]
    return hurts(evidence(result(before), result(after)).compared, p)


class Odd(PreferenceTrainer):
    """A stranger's trainer."""

    def __init__(self, end: object) -> None:
        self.end = end

    def train(self, policy: Path, pairs: Sequence[PreferencePair], out: Path) -> Path:
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end  # type: ignore[return-value]  # that is the point


@pytest.mark.parametrize(
    ("end", "says"),
    [
        (RuntimeError("no such device"), r"Odd failed: RuntimeError: no such device"),
        (SystemExit(3), r"Odd failed: SystemExit: 3"),
        (None, "Odd returned None; it must return the folder"),
        ("elsewhere", "returned 'elsewhere'"),
        (Path("/no/where"), "it must return the folder"),
    ],
)
def test_a_strangers_trainer_is_named_where_it_fails(end: object, says: str, tmp_path: Path) -> None:
    one = Round(1, tmp_path, Rollouts(tmp_path, Settings(), Registry(), {}), Odd(end))
    with pytest.raises(PluginError, match=says):
        one._trained(tmp_path, [])
    with pytest.raises(InputError, match="ours"):
        Round(1, tmp_path, one.runs, Odd(InputError("ours")))._trained(tmp_path, [])


class Elsewhere(PreferenceTrainer):
    """A stranger's trainer: it copies the policy, with all that lies there, and writes weights of its own."""

    def train(self, policy: Path, pairs: Sequence[PreferencePair], out: Path) -> Path:
        made = Path(shutil.copytree(policy, out.with_name("elsewhere")))
        (made / "model.safetensors").write_bytes(b"new weights")
        return made


@pytest.mark.parametrize("marked", [True, False])
def test_what_a_strangers_trainer_made_is_whole_wherever_it_goes(tmp_path: Path, marked: bool) -> None:
    run, policy = tmp_path / "run", tmp_path / "run" / "rounds" / "0" / "policy"
    policy.mkdir(parents=True)
    (policy / "model.safetensors").write_bytes(b"weights")
    if marked:
        mark(policy, base="what its adapter lies on")
    runs = Rollouts(run, Settings(), Registry(), {})
    trained = Round(1, run / "rounds" / "1", runs, Elsewhere())._trained(policy, [])
    assert is_complete(trained)
    assert "base" not in (read_marker(trained) or {})

    open_database(run / DATABASE, lambda trouble: None).close()
    with Ledger(run / DATABASE) as ledger:
        ledger.begin("summary", {"reasoner": identity_of(trained)})
        publish(run, ledger, trained)
        summary = run / "checkpoints" / "summary"
        summary.mkdir()
        (summary / "model.safetensors").write_bytes(b"the summary agent")
        mark(summary)
        assert trained_folders(run)["reasoning_agent"] == run / "checkpoints" / "reasoning"
        publish(run, ledger, trained)  # as the next `train` does
        assert is_complete(summary)


def test_a_folder_without_weights_is_no_trained_model(tmp_path: Path) -> None:
    one = Round(1, tmp_path, Rollouts(tmp_path, Settings(), Registry(), {}), Odd(tmp_path))
    with pytest.raises(PluginError, match=r"Odd returned '.*', which holds no weights \(\*\.safetensors\)"):
        one._trained(tmp_path, [])


def runs_of(recipe: str, tags: Sequence[str] = TAGS, **objects: object) -> Rollouts:
    settings = check_settings({"train": {"recipe": recipe}, "reasoning_agent": {"tags": list(tags)}})
    return Rollouts(Path("nowhere"), settings, default_registry(), objects)


def test_a_trainer_that_was_given_is_stopped_with_the_training() -> None:
    given = DPOPreferenceTrainer()
    runs = runs_of("dpo", trainer=given)
    used = trainer_of(runs)
    assert isinstance(used, DPOPreferenceTrainer)
    used._raise_if_stopped()
    runs.interrupt()
    with pytest.raises(Interrupted):
        used._raise_if_stopped()
    given._raise_if_stopped()  # it is the caller's, and was not changed


def test_a_trainer_writes_paths_as_the_agent_does() -> None:
    own = ("<think>", "</think>")
    with pytest.raises(ConfigError, match=r"in <thoughts> </thoughts>, and .* in <think> </think>; give"):
        trainer_of(runs_of("dpo", own, trainer=DPOPreferenceTrainer()))
    for recipe, given in (("dpo", DPOPreferenceTrainer(tags=own)), ("external", DPOPreferenceTrainer())):
        used = trainer_of(runs_of(recipe, own, trainer=given))
        assert isinstance(used, DPOPreferenceTrainer)
        assert (used.tags, used.settings) == (given.tags, given.settings)
    named = trainer_of(runs_of("dpo", own))
    assert isinstance(named, DPOPreferenceTrainer)
    assert named.tags == own


def test_what_ends_a_program_reaches_whoever_waits() -> None:
    async def work() -> None:
        raise SystemExit(3)

    for _ in range(2):  # the loop goes on
        with pytest.raises(SystemExit):
            blocking(work())


def test_a_round_is_rolled_back_only_where_it_hurts_beyond_noise() -> None:
    assert verdict(8, 0)
    assert not verdict(3, 0)  # p = 0.25
    assert not verdict(0, 12)
    assert not verdict(10, 6)
    assert not verdict(8, 0, p=0)
    assert not hurts(None, 0.05)


def test_a_policy_whose_answers_nobody_can_grade_is_rolled_back() -> None:
    unread: tuple[Outcome, ...] = ("ungraded",)
    before, collapsed = result([*RIGHT * 24, *WRONG * 6]), result([*RIGHT * 3, *unread * 27])
    facts = evidence(before, collapsed)
    assert facts.after is not None
    assert facts.after.accuracy == 1.0  # of what could be graded
    assert hurts(facts.compared, 0.05)
    assert "(27 of 30 not graded)" in accuracy(facts.after)
    assert hurts(evidence(before, result(unread * 30)).compared, 0.05)
    lost: tuple[Outcome, ...] = ("failed",)
    assert not hurts(evidence(before, result(lost * 30)).compared, 0.05)  # of the policy that says nothing
    assert not hurts(evidence(result([*unread * 27, *RIGHT * 3]), result([*RIGHT * 27, *WRONG * 3])).compared, 0.05)


def test_evidence_has_both_accuracies_and_the_paired_difference() -> None:
    facts = evidence(result([*RIGHT * 3, *WRONG]), result(RIGHT * 4)).as_json()
    assert (facts["before"]["accuracy"], facts["after"]["accuracy"]) == (0.75, 1.0)
    assert facts["compared"]["difference"] == 0.25
    low, high = facts["before"]["interval"]
    assert 0 < low < 0.75 < high < 1
    assert evidence(None, None).as_json() == {"before": None, "after": None}


def test_margins_and_places() -> None:
    path = ReasoningPath(question_id="q", index=0, status="ok")
    pairs = [PreferencePair(question_id="q", chosen=path, rejected=path, margin=margin) for margin in (20, 60)]
    assert margins(pairs) == Margins(least=20, mean=40, most=60)
    assert margins([]) is None
    assert placed(Path("run/rounds/1"), Path("run")) == "rounds/1"
    assert placed(Path("/elsewhere"), Path("run")) == "/elsewhere"
    assert drift_of(Path("/nowhere")) is None


def test_a_stage_without_a_logged_loss_reads_plainly() -> None:
    facts = StageFacts(steps=2, rows_trained_on=12, rows_left_out=0, loss=None)
    assert "2 steps on 12 rows, loss not logged" in "\n".join(stage_lines(entry("summary", facts)))


@pytest.mark.parametrize("rolled_back", [True, False])
def test_a_round_reads_plainly(rolled_back: bool) -> None:
    facts = StageFacts(
        pairs=40,
        source="the policy's own paths",
        policy="rounds/1/policy",
        margins=Margins(least=20, mean=45.5, most=99),
        trained=True,
        drift=Drift(log_ratio_chosen=Ends(last=0.5), log_ratio_rejected=Ends(last=None)),
        rolled_back=rolled_back,
        result="rounds/1/policy",
    )
    compared = evidence(result([*RIGHT * 8, *WRONG]), result(WRONG * 9))
    text = "\n".join(stage_lines(entry("round 2", facts | compared)))
    assert "40 pairs" in text
    assert "+0.500" in text
    assert "unknown" in text
    assert "88.9%" in text
    assert ("rolled back" in text) is rolled_back
