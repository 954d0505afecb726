"""AUCs, the sweep and the calibrated threshold, by hand-worked numbers."""

import numpy as np
import pytest

from pess_hf import PessError
from pess_hf.calibration import (
    CALIBRATION_FILE,
    Calibration,
    best_threshold,
    calibrate,
    pair_aucs,
    read_calibration,
    resolve_threshold,
    threshold_sweep,
    write_calibration,
)

E, N, C = "entailment", "neutral", "contradiction"
SCORES, LABELS = [0.9, 0.5, 0.7, 0.1, 0.5, 0.3], [E, E, C, N, N, C]


def test_aucs_count_pairs_in_the_right_order_and_ties_half():
    aucs = pair_aucs(SCORES, LABELS)
    # entailments 0.9, 0.5; neutral 0.1, 0.5: 3 right, 1 tie; contradictions 0.7, 0.3: 3 right of 4
    assert aucs["auc_entailment_neutral"] == 3.5 / 4
    assert aucs["auc_entailment_contradiction"] == 3 / 4
    assert aucs["auc_entailment_rest"] == 6.5 / 8


def test_a_label_that_does_not_occur_is_an_error():
    with pytest.raises(PessError, match="expected some with the label 'contradiction', found none"):
        pair_aucs([0.1, 0.9], [E, N])


def test_the_sweep_counts_what_passes():
    high, low, none = threshold_sweep(SCORES, LABELS, [0.6, 0.5, 0.95])
    assert (high["precision"], high["recall"], high["contradiction_passed"]) == (0.5, 0.5, 0.5)
    assert (low["precision"], low["recall"], low["neutral_passed"]) == (0.5, 1.0, 0.5)
    assert low["f1"] == pytest.approx(2 / 3)
    assert (none["precision"], none["recall"], none["f1"]) == (0, 0, 0)


def test_the_best_threshold_is_in_the_middle_of_the_best_ones():
    assert best_threshold([0.8, 0.7, 0.3, 0.2], [E, E, C, N]) == pytest.approx(0.51, abs=0.011)
    assert best_threshold([-0.1, -0.5], [E, N]) == pytest.approx(-0.3, abs=0.011)


def test_the_threshold_is_measured_on_premises_that_did_not_choose_it():
    rng = np.random.default_rng(0)
    groups = [f"p{n // 3}" for n in range(600)]
    labels = [(E, N, C)[n % 3] for n in range(600)]
    scores = np.where(np.array(labels) == E, 0.7, 0.3) + rng.normal(0, 0.1, 600)
    chosen = calibrate(scores, labels, groups)
    assert chosen.threshold == pytest.approx(0.52, abs=0.05)
    assert 0.9 < chosen.precision < 1 and 0.9 < chosen.recall < 1
    assert chosen.pairs == 300 and "highest F1" in chosen.reason
    with pytest.raises(PessError, match="two different premises"):
        calibrate([0.1, 0.9], [E, N], ["p", "p"])


def test_what_is_written_is_read_and_what_is_broken_is_named(tmp_path):
    assert read_calibration(tmp_path) is None
    write_calibration(tmp_path, Calibration(0.4, 0.9, 0.8, 10, "why"))
    assert read_calibration(tmp_path) == Calibration(0.4, 0.9, 0.8, 10, "why")
    for text in ("{", "[]", '{"threshold": 0.4}'):
        (tmp_path / CALIBRATION_FILE).write_text(text)
        with pytest.raises(PessError, match="expected what train_similarity"):
            read_calibration(tmp_path)
    write_calibration(tmp_path, Calibration(4.0, 0.9, 0.8, 10, "why"))
    with pytest.raises(PessError, match=r"expected a threshold in \[-1, 1\], found 4.0"):
        read_calibration(tmp_path)


def test_the_threshold_beside_the_encoder_is_used_unless_one_is_given(tmp_path):
    from pess_hf import PessTrainingArguments

    assert resolve_threshold(str(tmp_path), None) == 0.6
    write_calibration(tmp_path, Calibration(0.4, 0.9, 0.8, 10, "why"))
    assert resolve_threshold(str(tmp_path), None) == 0.4
    assert resolve_threshold(str(tmp_path), 0.0) == 0.0
    args = PessTrainingArguments(output_dir=str(tmp_path / "run"), similarity_model=str(tmp_path), use_cpu=True)
    assert args.similarity_threshold == 0.4
    assert PessTrainingArguments(output_dir=str(tmp_path / "run"), use_cpu=True).similarity_threshold == 0.6
