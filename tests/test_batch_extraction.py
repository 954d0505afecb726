"""Shards: every row once and in order whatever is interrupted, and a chunk in memory however long the input is."""

import datetime
import json
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from pess_hf.batch_extraction import RECORD, Plan, ShardedOutput, Survey, format_of, look_through, write_shards
from pess_hf.errors import PessError
from pess_hf.main_process import on_main_process
from pess_hf.shard_files import JsonLines, ParquetFiles

SETTINGS = {"max_new_tokens": 8}


def rows(number=20):
    for n in range(number):
        yield {"dialogue_id": f"row-{n}", "utterances": [f"Hello {n}."], "persona": [], "score": n / 2}


def answered(chunk):
    return [{**row, "persona": [f"said {row['dialogue_id']}"]} for row in chunk]


def extract(path, processes=1, stop_after=None, number=20, **more):
    """A run of some processes, one after the other; killed after some chunks each where told so."""
    output = ShardedOutput(str(path), **more)
    survey = look_through([("in.jsonl", rows(number))], output.file_format, chunk_rows=3)
    plan = output.begin(SETTINGS, survey, {"input": ["in.jsonl"]}, shard_rows=6, processes=processes)
    for process in range(processes):
        left = iter(range(1_000_000 if stop_after is None else stop_after))

        def answer(chunk, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return answered(chunk)

        try:
            write_shards(output, rows(number), plan, plan.share(process, processes), answer, chunk_rows=2)
        except KeyboardInterrupt:
            continue
    if stop_after is None:
        output.finish(plan)
    return plan


def finished_shards(processes, chunks):
    """How many of four shards of 3, 3, 3 and 1 chunks are whole after so many chunks in each process."""
    done = 0
    for process in range(processes):
        left = chunks
        for size in [3, 3, 3, 1][process::processes]:
            left -= size
            done += left >= 0
    return done


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("stop_after", [0, 1, 3, 5])
def test_a_killed_run_goes_on_with_any_number_of_processes(tmp_path, processes, stop_after):
    extract(tmp_path / "out.jsonl", processes, stop_after)
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl.partial"]
    plan = extract(tmp_path / "out.jsonl", processes=2)
    assert len(plan.unfinished) == 4 - finished_shards(processes, stop_after)
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert written == answered(rows())
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_short_input_is_cut_so_that_each_process_has_a_part(tmp_path):
    plan = extract(tmp_path / "out.jsonl", processes=2, number=5)
    assert [plan.share(process, 2) for process in range(2)] == [[0], [1]] and plan.shard_rows == 3


def test_no_more_than_a_chunk_is_read_ahead(tmp_path):
    state = SimpleNamespace(read=0, answered=0, most=0)

    def counted():
        for row in rows(200):
            state.read += 1
            yield row

    def answer(chunk):
        state.most = max(state.most, state.read - state.answered)
        state.answered += len(chunk)
        return answered(chunk)

    output = ShardedOutput(str(tmp_path / "out.jsonl"))
    plan = output.begin(SETTINGS, Survey(200, 0), {}, shard_rows=100)
    write_shards(output, counted(), plan, plan.share(0, 1), answer, chunk_rows=7)
    assert state.read == state.answered == 200
    assert state.most == 7


def test_a_folder_keeps_its_shards(tmp_path):
    extract(f"{tmp_path / 'out'}/", stop_after=4)
    (tmp_path / "out.partial" / ".shard-00002.jsonl.0123456789abcdef.tmp").write_text("{")
    extract(f"{tmp_path / 'out'}/")
    folder = tmp_path / "out"
    assert sorted(path.name for path in folder.iterdir()) == [RECORD, *(f"shard-0000{n}.jsonl" for n in range(4))]
    lines = [line for shard in sorted(folder.glob("shard-*")) for line in shard.read_text().splitlines()]
    assert [json.loads(line) for line in lines] == answered(rows())
    assert json.loads((folder / RECORD).read_text())["rows"] == 20
    with pytest.raises(PessError, match="expected no such folder, found one"):
        extract(f"{folder}/")
    extract(f"{folder}/", overwrite=True, file_format="parquet")
    assert len(list(folder.glob("shard-*.parquet"))) == 4 and not list(folder.glob("*.jsonl"))


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(PessError, match="expected a folder that an extraction wrote or none"):
        ShardedOutput(f"{tmp_path / 'mine'}/", overwrite=True)
    with pytest.raises(PessError, match=f"expected what an extraction left, found no {RECORD}"):
        (tmp_path / "mine").rename(tmp_path / "out.jsonl.partial")
        extract(tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl.partial" / "thesis.txt").exists()


def test_parquet_keeps_types_that_json_cannot_hold(tmp_path):
    when = datetime.datetime(2026, 1, 1)
    more = [{"said": when, "note": {"by": "me"}}, {"said": when}, {"note": {"by": "you", "page": 3}}]
    given = [{**row, **extra} for row, extra in zip(rows(3), more, strict=True)]
    output = ShardedOutput(str(tmp_path / "out.parquet"))
    survey = look_through([("in", given)], output.file_format, chunk_rows=1)
    plan = output.begin(SETTINGS, survey, {}, shard_rows=2)
    write_shards(output, given, plan, plan.share(0, 1), answered, chunk_rows=2)
    output.finish(plan)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["dialogue_id", "utterances", "persona", "score", "said", "note"]
    assert table["said"].to_pylist() == [when, when, None]
    assert table["note"].to_pylist() == [{"by": "me", "page": None}, None, {"by": "you", "page": 3}]
    assert table["persona"].to_pylist() == [row["persona"] for row in answered(given)]


def test_a_value_that_does_not_fit_is_named_with_its_source_row_and_column(tmp_path):
    bad = [*rows(4), {"dialogue_id": "row-4", "utterances": ["Hi."], "persona": [], "score": float("nan")}]
    with pytest.raises(PessError, match=r"^b.jsonl, row 5, column 'score': expected what JSON can hold, found float"):
        look_through([("a.jsonl", rows()), ("b.jsonl", bad)], JsonLines(), chunk_rows=2)
    mixed = [*rows(3), {"dialogue_id": "row-3", "utterances": ["Hi."], "persona": [], "score": {"of": 3}}]
    with pytest.raises(PessError, match=r"^b.jsonl, rows 4 to 4, column 'score': expected values of one type"):
        look_through([("b.jsonl", mixed)], ParquetFiles(), chunk_rows=3)


def test_the_input_is_told_by_what_it_holds():
    first = look_through([("a", rows())], JsonLines(), chunk_rows=3)
    assert first == look_through([("b", rows())], JsonLines(), chunk_rows=20)
    changed = [{**row, "utterances": ["Bye."]} if n == 19 else row for n, row in enumerate(rows())]
    assert first.crc32 != look_through([("a", changed)], JsonLines()).crc32


def test_rows_that_vanish_while_they_are_read_are_an_error(tmp_path):
    output = ShardedOutput(str(tmp_path / "out.jsonl"))
    plan = output.begin(SETTINGS, Survey(20, 0), {}, shard_rows=6)
    with pytest.raises(PessError, match="expected 6 rows more, found 3: it was changed while it was read"):
        write_shards(output, rows(15), plan, plan.share(0, 1), answered, chunk_rows=2)
    with pytest.raises(PessError, match=r"shard-00002.jsonl: expected 6 rows, found 0"):
        output.finish(plan)
    assert not (tmp_path / "out.jsonl").exists()


def test_an_error_of_the_main_process_is_reported_by_it_alone(monkeypatch):
    sent = []
    monkeypatch.setattr("accelerate.utils.broadcast_object_list", sent.append)

    def fail():
        raise PessError("in.jsonl, line 3: wrong")

    with pytest.raises(PessError, match="line 3"):
        on_main_process(SimpleNamespace(is_main_process=True), fail)
    assert sent == [[False, None]]
    with pytest.raises(SystemExit) as caught:
        on_main_process(SimpleNamespace(is_main_process=False), fail)
    assert caught.value.code == 1
    assert on_main_process(SimpleNamespace(is_main_process=True), lambda: Plan(1, 1, ())) == Plan(1, 1, ())


@pytest.mark.parametrize("text", ['{"rows": 2', "[1]", "{}"])
def test_a_damaged_record_is_one_line(tmp_path, text):
    extract(tmp_path / "out.jsonl", stop_after=3)
    (tmp_path / "out.jsonl.partial" / RECORD).write_text(text)
    with pytest.raises(PessError, match=f"{RECORD}: expected what an extraction wrote, .* Delete .*out.jsonl.partial"):
        extract(tmp_path / "out.jsonl")


def test_a_folder_that_another_run_has_finished_meanwhile_is_not_deleted(tmp_path):
    out = f"{tmp_path}/out/"
    slower = ShardedOutput(out)
    extract(out)
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    survey = look_through([("in.jsonl", rows())], slower.file_format)
    plan = slower.begin(SETTINGS, survey, {}, shard_rows=6)
    write_shards(slower, rows(), plan, list(plan.unfinished), answered, chunk_rows=2)
    with pytest.raises(OSError, match="not empty"):
        slower.finish(plan)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.jsonl.gz", "out.PARQUETS"])
def test_an_extension_that_is_not_written_is_named_with_those_that_are(tmp_path, name):
    with pytest.raises(
        PessError, match=rf"{name}: expected an output that ends in .jsonl or .parquet, found \.\w+\. "
    ):
        ShardedOutput(str(tmp_path / "new" / name))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "asked", "written"),
    [
        ("out.csv", "jsonl", "jsonl"),
        ("v1.2/", None, "jsonl"),
        ("out.Parquet", None, "parquet"),
        ("out", None, "jsonl"),
    ],
)
def test_what_is_asked_for_or_has_no_extension_is_written(name, asked, written):
    assert format_of(name, asked) == written


def test_an_extension_that_contradicts_the_format_is_refused():
    with pytest.raises(PessError, match=r"^out.parquet: expected an output that ends in .jsonl, found .parquet. Name"):
        format_of("out.parquet", "jsonl")
