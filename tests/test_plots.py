"""The heat map of one dialogue."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.image import imread

from pess_hf.plots import plot_similarity
from pess_hf.similarity import match_sentences

LONG = "I have never seen so long a sentence about two dogs, a cat and the sea in my whole life. " * 5
CASES = {
    "normal": (["I own a dog.", "I fly."], ["I have a dog.", "I sing.", "I ski."]),
    "nothing generated": ([], ["I have a dog.", "I sing."]),
    "empty reference": (["I own a dog."], []),
    "both empty": ([], []),
    "long": ([LONG, "I sing."], [LONG]),
    "one long word": (["x" * 400], ["y" * 400]),
    "formula signs": ([r"It costs $\frac{ or $", "a_b^c"], ["$$", "100% {x}"]),
    "accents": (["Żółw je."], ["naïve café"]),
    "many": ([f"I like {j}." for j in range(6)], [f"I like {i}." for i in range(6)]),
}


@pytest.mark.parametrize(("generated", "reference"), CASES.values(), ids=CASES.keys())
def test_a_picture_is_written(tmp_path, generated, reference):
    similarity = np.linspace(-1, 1, len(reference) * len(generated)).reshape(len(reference), len(generated))
    match = match_sentences(similarity, generated, 0.6)
    plot_similarity(tmp_path / "match.png", generated, reference, match, 0.6)
    picture = imread(tmp_path / "match.png")
    assert picture.shape[0] > 100 and picture.shape[1] > 100
    assert picture[..., :3].std() > 0, "the picture is not blank"
    assert plt.get_fignums() == [], "the figure is closed"


def test_the_extension_decides_the_format(tmp_path):
    match = match_sentences(np.array([[0.9]]), ["a"], 0.6)
    plot_similarity(str(tmp_path / "match.svg"), ["a"], ["b"], match, 0.6)
    assert "<svg" in (tmp_path / "match.svg").read_text()


def count_red(path):
    picture = imread(path)[..., :3]
    return int(((picture[..., 0] > 0.9) & (picture[..., 1] < 0.1) & (picture[..., 2] < 0.1)).sum())


def test_only_cells_at_or_above_the_threshold_are_framed(tmp_path):
    red = {}
    for value in (0.59, 0.6):
        match = match_sentences(np.array([[value, 0.0]]), ["a", "b"], 0.6)
        plot_similarity(tmp_path / "match.png", ["a", "b"], ["c"], match, 0.6)
        red[value] = count_red(tmp_path / "match.png")
    assert red[0.59] == 0
    assert red[0.6] > 0
