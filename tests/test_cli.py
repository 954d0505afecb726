import errno
import json
import os
import subprocess
import sys

import pytest

from pess_hf.cli import (
    atomic_write,
    describe_os_error,
    one_line,
    prepare_output_dir,
    run_recipe,
    write_json,
    write_jsonl,
)
from pess_hf.errors import PessError


def raiser(error):
    def main():
        raise error

    return main


def failing(capsys, error) -> str:
    with pytest.raises(SystemExit) as info:
        run_recipe(raiser(error))
    assert info.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


# --- run_recipe -----------------------------------------------------------------------------------------------------


def test_success_returns():
    calls = []
    assert run_recipe(lambda: calls.append(1)) is None
    assert calls == [1]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PessError("a.jsonl, line 3:\n  expected x"), "error: a.jsonl, line 3: expected x\n"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a"), "a: no such file or directory; check"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: permission denied; choose"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", b"a"), "a: is a directory; name a file"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device; free some disk space"),
        (OSError("x is not a local folder\n\nand not a model id"), "x is not a local folder and not a model id"),
        (FileNotFoundError(), "FileNotFoundError"),
    ],
)
def test_mendable_errors_are_one_line(capsys, error, message):
    assert message in failing(capsys, error)


def test_interrupt(capsys):
    with pytest.raises(SystemExit) as info:
        run_recipe(raiser(KeyboardInterrupt()))
    assert info.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("error", [ValueError("bug"), RuntimeError("bug"), KeyError("bug")])
def test_bugs_keep_their_traceback(error):
    with pytest.raises(type(error)):
        run_recipe(raiser(error))


def test_exit_status_of_the_command_line_passes_through():
    with pytest.raises(SystemExit) as info:
        run_recipe(raiser(SystemExit(2)))
    assert info.value.code == 2


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_debug_switch_shows_the_traceback(capsys, monkeypatch, value, shown):
    monkeypatch.setenv("PESS_DEBUG", value)
    with pytest.raises(SystemExit):
        run_recipe(raiser(PessError("slip")))
    err = capsys.readouterr().err
    assert ("Traceback" in err) is shown
    assert err.endswith("error: slip\n")


def test_no_heavy_import():
    code = "import sys, pess_hf.cli; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'yaml')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_line():
    assert one_line(" a \r\n\n  b  c\n") == "a b  c"


def test_describe_names_the_given_path():
    error = OSError(errno.ENOSPC, "No space left on device")
    assert describe_os_error(error, "out.json").startswith("out.json: no space left on device; free")


# --- prepare_output_dir ---------------------------------------------------------------------------------------------


def test_output_dir_is_made_and_left_empty(tmp_path):
    folder = prepare_output_dir(str(tmp_path / "a" / "b"))
    assert folder == tmp_path / "a" / "b"
    assert list(folder.iterdir()) == []


def test_existing_output_dir_keeps_its_files(tmp_path):
    (tmp_path / "kept").write_text("x")
    prepare_output_dir(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("tail", ["", "child", "child/grandchild"])
def test_output_dir_below_a_file_is_refused(tmp_path, tail):
    (tmp_path / "file").write_text("x")
    with pytest.raises(PessError, match=r"cannot write to the output folder .*file"):
        prepare_output_dir(tmp_path / "file" / tail)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_folders_made_on_the_way_are_removed_again(tmp_path):
    with pytest.raises(PessError, match="choose a shorter name"):
        prepare_output_dir(tmp_path / "a" / "b" / ("n" * 300))
    assert list(tmp_path.iterdir()) == []


# --- files ----------------------------------------------------------------------------------------------------------


def test_write_json(tmp_path):
    path = tmp_path / "m.json"
    write_json(path, {"z": 1, "a": ["é", None, True]})
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {"z": 1, "a": ["é", None, True]}
    assert text.index('"z"') < text.index('"a"')
    assert "é" in text and text.endswith("}\n")
    assert os.listdir(tmp_path) == ["m.json"]


def test_write_jsonl_reads_rows_once(tmp_path):
    path = tmp_path / "p.jsonl"
    write_jsonl(path, ({"n": n, "text": "a\nb"} for n in range(3)))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["n"] for row in rows] == [0, 1, 2]


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ({"loss": float("nan")}, "m.json: 'loss' is nan, expected a finite number; nothing was written"),
        ({"a": [1.0, {"b": float("-inf")}]}, "'a.1.b' is -inf"),
        (float("inf"), "the value is inf"),
    ],
)
def test_json_refuses_what_json_cannot_say(tmp_path, obj, message):
    path = tmp_path / "m.json"
    path.write_text("old")
    with pytest.raises(PessError, match=message):
        write_json(path, obj)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["m.json"]


def test_jsonl_names_the_line_and_leaves_nothing(tmp_path):
    with pytest.raises(PessError, match=r"p\.jsonl, line 2: 'x' is nan"):
        write_jsonl(tmp_path / "p.jsonl", [{"x": 1.0}, {"x": float("nan")}])
    assert os.listdir(tmp_path) == []


def test_what_json_does_not_know_is_a_bug(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "m.json", {"x": object()})
    loop: list = []
    loop.append(loop)
    with pytest.raises((ValueError, RecursionError)) as info:
        write_json(tmp_path / "m.json", loop)
    assert not isinstance(info.value, PessError)


def test_interrupted_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.txt"]


def test_write_follows_a_link_and_keeps_line_ends(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_write(tmp_path / "link") as file:
        file.write("new\n")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new\n"


def test_new_file_has_the_usual_mode(tmp_path):
    (tmp_path / "plain").write_text("x")
    write_json(tmp_path / "made", {})
    assert (tmp_path / "made").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["gone/out.json", "file/out.json", ".", "n" * 300])
def test_unwritable_target_names_the_target(tmp_path, name):
    (tmp_path / "file").write_text("x")
    target = os.path.join(tmp_path, name)
    with pytest.raises(PessError) as info:
        write_json(target, {})
    assert str(info.value).startswith(f"{target}: ")
    assert ".tmp" not in str(info.value)
    assert os.listdir(tmp_path) == ["file"]


def test_a_device_is_never_replaced():
    with pytest.raises(PessError, match=r"^/dev/null: expected a file"):
        write_json("/dev/null", {})


def test_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="other"), atomic_write(tmp_path / "out"):
        open(tmp_path / "other").close()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_one_line(capsys):
    def main():
        with open("/dev/full", "w") as file:
            file.write("x" * 100_000)

    with pytest.raises(SystemExit):
        run_recipe(main)
    assert "no space left on device; free some disk space" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rank", "world", "error", "waits"),
    [
        ("0", "1", PessError("x"), 0),
        ("0", "2", PessError("x"), 0),
        ("1", "2", PessError("x"), 1),
        ("0", "2", RuntimeError("a peer is gone"), 1),
        ("0", "1", RuntimeError("a bug"), 0),
    ],
)
def test_of_several_processes_the_first_speaks_first(monkeypatch, capsys, rank, world, error, waits):
    """The others give the launcher time to end them; a broken exchange is shown only if nobody says why."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    waited = []
    monkeypatch.setattr("pess_hf.cli.time.sleep", lambda seconds: waited.append(capsys.readouterr().err))

    def main():
        raise error

    with pytest.raises(SystemExit if isinstance(error, PessError) else RuntimeError):
        run_recipe(main)
    assert waited == [""] * waits
    assert ("error: x" in capsys.readouterr().err) == isinstance(error, PessError)
