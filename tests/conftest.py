"""The suite runs without a network: the only Hub that the Hugging Face libraries know is one on 127.0.0.1.

HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE are read once, when huggingface_hub is imported, so they are set here, before
any such import. HF_HUB_OFFLINE=1 would shut the loopback Hub out too; so the suite is not offline but talks to the
loopback Hub, and a test that did not ask for it (fixture `hub`) fails if it sent a request. Subprocesses inherit this.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from loopback_hub import LoopbackHub  # noqa: E402

HUB = LoopbackHub().start()
HF_HOME = Path(tempfile.mkdtemp(prefix="pess_hf_home_"))
atexit.register(shutil.rmtree, HF_HOME, ignore_errors=True)

for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING_FACE_", "TRANSFORMERS_"))]:
    del os.environ[name]
os.environ |= {
    "HF_ENDPOINT": HUB.url,
    "HF_HOME": str(HF_HOME),
    "HF_HUB_DISABLE_XET": "1",  # hf-xet asks for a write token that only the real Hub hands out
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",  # tiny models gain nothing from threads, and much waiting on a busy machine
}


@pytest.fixture
def hub():
    """The loopback Hub, empty, and an empty HF_HOME (no cache, no login)."""
    HUB.reset()
    for path in HF_HOME.iterdir():
        # Remote code that is already imported lives in modules/, under the hash of its content.
        if path.name != "modules":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    yield HUB
    HUB.reset()


@pytest.fixture
def run(tmp_path):
    """The folder of a finished run that is fit to be published."""
    from tiny_runs import make_run

    return make_run(tmp_path / "run")


@pytest.fixture
def release(run, hub, monkeypatch, capsys, caplog):
    """recipes/release.py on that run; see `release_recipe`."""
    from release_recipe import release_recipe

    return release_recipe(run, hub, monkeypatch, capsys, caplog)


@pytest.fixture(autouse=True)
def _no_request_unless_asked(request):
    before = len(HUB.log)
    yield
    if "hub" not in request.fixturenames:
        sent = [f"{line.method} {line.path}" for line in HUB.log[before:]]
        assert not sent, f"a test without the fixture `hub` asked the Hub for {sent}"


@pytest.fixture
def fresh_process(tmp_path):
    """Run Python code in a new process that has its own HF_HOME and talks to the loopback Hub.

    With `library=False`, pess_hf cannot be imported there, even where it is installed.
    """

    def run(code, *, library=True, cwd=tmp_path, **environment):
        home = tempfile.mkdtemp(prefix="hf_home_", dir=tmp_path)
        settings = {"HF_HOME": home, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        # None in sys.modules is Python's own way to refuse an import.
        code = code if library else "import sys; sys.modules['pess_hf'] = None\n" + code
        command = [sys.executable, "-c", code]
        environment = os.environ | settings | environment
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)

    return run
