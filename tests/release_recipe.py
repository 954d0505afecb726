"""recipes/release.py in this process, as a terminal shows it; no token may ever be seen there."""

import logging
import runpy
from pathlib import Path

from pess_hf.cli import run_recipe

ROOT = Path(__file__).resolve().parent.parent
REPO = "tester/released"
FILES = {
    ".gitattributes", "README.md", "config.json", "generation_config.json", "metrics.json", "model.safetensors",
    "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


def release_recipe(run, hub, monkeypatch, capsys, caplog):
    """A function that publishes `run` and returns (status, stdout, stderr)."""
    main = runpy.run_path(str(ROOT / "recipes" / "release.py"))["main"]
    caplog.set_level(logging.DEBUG)

    def call(*options, token="write", license="apache-2.0"):
        monkeypatch.setenv("HF_TOKEN", hub.tokens[token]) if token else monkeypatch.delenv("HF_TOKEN", raising=False)
        capsys.readouterr()
        given = ["--run", str(run), "--repo_id", REPO, *(["--license", license] if license else []), *options]
        status = 0
        try:
            run_recipe(lambda: main(given))
        except SystemExit as error:
            status = error.code
        shown = capsys.readouterr()
        for secret in hub.tokens.values():
            assert secret not in shown.out + shown.err + caplog.text
        return status, shown.out, shown.err

    return call


def refused(answer, *words):
    """One line that says `error:` and every one of `words`."""
    status, _, err = answer
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 1 and len(lines) == 1 and "Traceback" not in err, err
    assert all(word in lines[0] for word in words), lines[0]
    return True
