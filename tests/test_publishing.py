"""Which agents stand in `checkpoints/` together, and what is never touched there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from insightv.errors import ConfigError
from insightv.ledger import Ledger
from insightv.publishing import publish
from insightv.run import DATABASE
from insightv.store import open_database
from insightv.train.checkpoints import is_complete, mark


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    open_database(tmp_path / DATABASE, lambda trouble: None).close()
    with Ledger(tmp_path / DATABASE) as opened:
        yield opened


def model(folder: Path, marked: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(folder.name.encode())
    if marked:
        mark(folder)
    return folder


@pytest.mark.parametrize("met", [None, "another policy"])
def test_a_summary_agent_never_stands_beside_a_reasoner_that_it_has_not_met(
    tmp_path: Path, ledger: Ledger, met: str | None
) -> None:
    summary, reasoning = tmp_path / "checkpoints" / "summary", tmp_path / "checkpoints" / "reasoning"
    policy = model(tmp_path / "policy")
    model(summary)
    ledger.begin("summary", {"reasoner": met})
    publish(tmp_path, ledger, policy)
    assert is_complete(reasoning)
    assert not summary.exists()

    model(summary)
    ledger.begin("summary", {"reasoner": None})
    publish(tmp_path, ledger, None)  # the summary agent is trained alone
    assert is_complete(summary)
    assert not reasoning.exists()
    assert is_complete(policy)


@pytest.mark.parametrize("agent", ["reasoning", "summary"])
def test_a_folder_of_somebody_else_is_never_removed(tmp_path: Path, ledger: Ledger, agent: str) -> None:
    theirs = model(tmp_path / "checkpoints" / agent, marked=False)
    with pytest.raises(ConfigError, match="insightv did not write"):
        publish(tmp_path, ledger, None)
    assert (theirs / "model.safetensors").read_bytes() == agent.encode()
