"""A few kills of the campaign, and that it notices what it is there for."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def crash_campaign(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # the killed processes inherit it
    import crash_campaign

    return crash_campaign


@pytest.mark.timeout(900)  # a dozen processes one after the other, on a machine that may be busy
def test_killed_runs_end_with_the_weights_of_an_undisturbed_one(crash_campaign, tmp_path):
    settings = tuple(setting for setting in crash_campaign.SETTINGS if setting.rollout_steps == 8)
    campaign = crash_campaign.Campaign(tmp_path, seed=3, settings=settings)
    campaign.run(kills=3)
    assert campaign.lost == []
    assert len(campaign.kills) == 3 and sum(run.kills for run in campaign.finished) == 3
    assert campaign.finished and all(run.difference <= 1e-6 for run in campaign.finished)


def test_a_difference_is_counted_as_lost(crash_campaign, tmp_path):
    setting = crash_campaign.SETTINGS[0]
    campaign = crash_campaign.Campaign(tmp_path, seed=0)
    campaign.whole[setting.name] = crash_campaign.Whole({"weight": np.zeros(3, np.float32)}, 1.0, 0.1)
    for weight, lost in ((5e-7, 0), (2e-6, 1)):
        save_file({"weight": np.full(3, weight, np.float32)}, tmp_path / crash_campaign.FINAL)
        campaign._compare(setting, tmp_path, kills=1)
        assert len(campaign.lost) == lost
    assert f"| {setting.name} | 0 | 0 | 0 | 0 | 0 | 2 | 2.0e-06 |" in crash_campaign.table(campaign)
