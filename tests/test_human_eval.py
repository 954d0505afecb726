"""Human evaluation: what the pages hold and hide, what is refused, the statistics by hand."""

import json
import re

import pytest
from recipe_runs import flags, recipe

from pess_hf import PessError
from pess_hf.data import load_support_dataset
from pess_hf.human_eval import ASPECTS, ReplyPair, pair_replies, read_replies, write_pages
from pess_hf.human_eval_scores import fleiss_kappa, read_judgements, score_judgements

CONTEXT = [{"speaker": "seeker", "text": "I lost my <b>job</b> & \"more\" '</script>'."}]
EVIL = "</script><script>alert(1)</script>"


def pairs(number=6):
    return [ReplyPair(f"secret/{n}", 1, CONTEXT, f"Reply A{n} {EVIL}", f"Reply B{n}") for n in range(number)]


def make(folder, number=6, raters=2, seed=0):
    return write_pages(folder, pairs(number), {"a": "runs/base", "b": "runs/pess"}, raters, seed)


def key_of(folder):
    return json.loads((folder / "key" / "key.json").read_text())


def items_of(page):
    """For each item, in the page's order, its two replies as HTML."""
    found = re.findall(
        r'data-item="(\w+)".*?<blockquote>(.*?)</blockquote>.*?<blockquote>(.*?)</blockquote>', page, re.S
    )
    return {name: replies for name, *replies in found}


class TestPages:
    def test_a_page_is_blind_whole_and_escaped(self, tmp_path):
        first, _ = make(tmp_path)
        page = first.read_text()
        assert not any(word in page for word in ("secret", "runs/base", "runs/pess", "key.json"))
        assert "http://" not in page and "https://" not in page and "src=" not in page, "nothing is fetched"
        assert page.count("<script>") == 1 and EVIL not in page
        assert "&lt;b&gt;job&lt;/b&gt; &amp; &#34;more&#34;" in page
        assert page.count("<fieldset") == 6 * len(ASPECTS) and page.count('type="radio"') == 6 * len(ASPECTS) * 3

    def test_the_key_tells_the_sides_and_raters_see_their_own_order(self, tmp_path):
        key, pages = None, make(tmp_path, number=12)
        key = key_of(tmp_path)
        orders = []
        for rater, path in zip(("rater_1", "rater_2"), pages, strict=True):
            items = items_of(path.read_text())
            orders.append(list(items))
            for name, (left, _) in items.items():
                number = key["items"][name][0].split("/")[1]
                assert left.startswith(f"Reply {key['left'][rater][name].upper()}{number}")
            assert {"a", "b"} == set(key["left"][rater].values())
        assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
        assert key["left"]["rater_1"] != key["left"]["rater_2"]

    def test_the_seed_decides(self, tmp_path):
        texts = [make(tmp_path / name, seed=seed)[0].read_text() for name, seed in (("1", 1), ("2", 1), ("3", 2))]
        assert texts[0] == texts[1] != texts[2]


def replies(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def reply(turn, text, **more):
    return {"dialogue_id": "d", "turn": turn, "generated": {"strategy": None, "text": text}} | more


class TestReplies:
    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (reply(1, "Oh."), "line 2: expected one reply a turn, found a second one for turn 1 of d"),
            (reply("1", "Oh."), "line 2: expected a text 'dialogue_id' and a number 'turn'"),
            (reply(2, None), "line 2, column 'generated': expected an object with a text 'text'"),
            ({"dialogue_id": "d", "turn": 2, "generated": ["I sing."]}, "column 'generated'"),
        ],
    )
    def test_what_is_no_reply_is_named(self, tmp_path, row, message):
        with pytest.raises(PessError, match=message):
            read_replies(replies(tmp_path / "p.jsonl", reply(1, "Hm."), row))

    def test_what_cannot_be_judged_is_counted(self):
        a, b = {("d", 1): "Hm.", ("d", 3): "Same", ("d", 5): "x"}, {("d", 1): "Oh.", ("d", 3): "Same ", ("d", 7): "y"}
        found, left_out = pair_replies(a, b, {("d", 1): CONTEXT})
        assert [(pair.turn, pair.a, pair.b) for pair in found] == [(1, "Hm.", "Oh.")]
        assert left_out == {"only_a": 1, "only_b": 1, "identical": 1}
        with pytest.raises(PessError, match="expected turn 1 of d among the conversations"):
            pair_replies(a, b, {})
        with pytest.raises(PessError, match="expected turns that both systems answer differently, found none"):
            pair_replies(a, {("d", 3): "Same"}, {})


def answers(path, key, who, prefer, **more):
    """Answers of a rater who knows what he prefers: item name -> "a", "b" or "tie"."""
    sides = key["left"][who]
    said = {
        item: dict.fromkeys(ASPECTS, "tie" if choice == "tie" else "left" if sides[item] == choice else "right")
        for item, choice in prefer.items()
    }
    path.write_text(json.dumps({"study": key["study"], "rater": who, "answers": said} | more))
    return path


class TestScores:
    @pytest.fixture
    def key(self, tmp_path):
        make(tmp_path)
        return key_of(tmp_path)

    def test_what_raters_prefer_comes_back_through_the_blinding(self, tmp_path, key):
        items = list(key["items"])
        wanted = {
            "rater_1": dict(zip(items, "aaaab", strict=False)),
            "rater_2": dict(zip(items, "aaab", strict=False)),
        }
        wanted["rater_2"][items[4]] = "tie"
        files = [answers(tmp_path / f"{rater}.json", key, rater, prefer) for rater, prefer in wanted.items()]
        scores = score_judgements(read_judgements(tmp_path / "key" / "key.json", files))
        assert set(scores) == set(ASPECTS)
        overall = scores["overall"]
        assert (overall["win"], overall["tie"], overall["lose"]) == (7, 1, 2)
        # items: a, a, a, split, b by one vote and a tie; the sixth was judged by nobody
        assert (overall["items_won"], overall["items_tied"], overall["items_lost"]) == (3, 1, 1)
        assert overall["p_value"] == pytest.approx(10 / 16), "of 4 fair tosses, 0, 1, 3 or 4 heads"
        # observed 3/5; labels 7, 1, 2 of 10: chance 0.54
        assert overall["fleiss_kappa"] == pytest.approx((0.6 - 0.54) / (1 - 0.54))
        assert overall["kappa_items"] == 5

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"study": "other"}, "expected answers of study .*, found 'other'"),
            ({"rater": "rater_9"}, "expected a rater of rater_1, rater_2, found 'rater_9'"),
            ({"answers": {"item_0001": {"overall": "both"}}}, "found item_0001/overall='both'"),
            ({"answers": {"item_9": {"overall": "tie"}}}, "found item_9/overall"),
        ],
    )
    def test_files_of_something_else_are_refused(self, tmp_path, key, more, message):
        path = answers(tmp_path / "x.json", key, "rater_1", {}, **more)
        with pytest.raises(PessError, match=message):
            read_judgements(tmp_path / "key" / "key.json", [path])

    def test_a_rater_twice_no_json_and_nothing_said_are_refused(self, tmp_path, key):
        path = answers(tmp_path / "x.json", key, "rater_1", {})
        key_file = tmp_path / "key" / "key.json"
        with pytest.raises(PessError, match="expected each rater once, found rater_1"):
            read_judgements(key_file, [path, path])
        with pytest.raises(PessError, match="expected at least one judgement, found none"):
            score_judgements(read_judgements(key_file, [path]))
        path.write_text("[1]")
        with pytest.raises(PessError, match="expected a JSON object with study, rater, answers"):
            read_judgements(key_file, [path])
        with pytest.raises(PessError, match="no such file"):
            read_judgements(key_file, [tmp_path / "none.json"])

    def test_only_ties_have_no_p_value(self):
        scores = score_judgements({"overall": {"i": {"r1": "tie", "r2": "tie"}, "j": {}}})["overall"]
        assert scores["p_value"] is None and scores["fleiss_kappa"] is None and scores["items_tied"] == 1

    def test_fleiss_kappa_of_a_table_worked_by_hand(self):
        # Three raters, four items: agreement per item 1, 1/3, 1/3, 1, mean 2/3; shares 7/12 and 5/12, chance 74/144.
        table = ["aaa", "aab", "abb", "bbb"]
        shares = sum(row.count("a") for row in table) / 12
        chance = shares**2 + (1 - shares) ** 2
        assert fleiss_kappa(table) == pytest.approx((2 / 3 - chance) / (1 - chance))
        assert fleiss_kappa(["a", "b"]) is None and fleiss_kappa([]) is None


class TestRecipe:
    def test_from_predictions_to_figures(self, tmp_path, capsys):
        row = load_support_dataset("sample", "test")[0]
        turns = [t for t, turn in enumerate(row["turns"]) if turn["speaker"] == "supporter"]
        for name in "ab":
            rows = [reply(t, f"{name} says {t}", dialogue_id=row["dialogue_id"]) for t in turns]
            replies(tmp_path / f"{name}.jsonl", *rows)
        human_eval = recipe("human_eval")
        study = tmp_path / "study"
        settings = {"system_a": tmp_path / "a.jsonl", "system_b": tmp_path / "b.jsonl", "data": "sample",
                    "split": "test", "output_dir": study, "raters": 2, "max_items": 2}  # fmt: skip
        human_eval.main(["make", *flags(**settings)])
        assert sorted(path.name for path in study.iterdir()) == ["key", "rater_1.html", "rater_2.html"]
        assert row["turns"][0]["text"].split(".")[0].split("'")[0] in (study / "rater_1.html").read_text()
        key = key_of(study)
        assert len(key["items"]) == min(2, len(turns)) and key["left_out"]["identical"] == 0
        given = answers(tmp_path / "1.json", key, "rater_1", dict.fromkeys(key["items"], "b"))
        output = tmp_path / "scores.json"
        human_eval.main(["score", *flags(key=study / "key" / "key.json", answers=[str(given)], output=output)])
        scores = json.loads(output.read_text())
        assert scores["aspects"]["overall"]["lose"] == len(key["items"]) and scores["unanswered"] == 0
        assert "Fleiss' kappa" in capsys.readouterr().out

    @pytest.mark.parametrize(("words", "status"), [([], 2), (["play"], 2), (["--help"], 0)])
    def test_usage(self, words, status, capsys):
        with pytest.raises(SystemExit) as left:
            recipe("human_eval").main(words)
        printed = capsys.readouterr()
        assert left.value.code == status
        assert "make|score" in (printed.err if status else printed.out)  # help that was asked for is no error
