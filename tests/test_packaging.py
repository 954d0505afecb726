"""The files around the library: they rot unless something reads them."""

import ast
import configparser
import re
import subprocess
import tomllib
import warnings
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {".git", ".venv", "runs", "build", "dist", "__pycache__"}
TEXT = {".py", ".md", ".yaml", ".yml", ".cfg", ".toml", ".txt", ".json", ".jsonl", ".jinja", ".j2", ".csv", ".sh", ""}
# Put together here, so that this file does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:" + "|".join(["work", "root", "home", "Users", "mnt", "opt"]) + r")/\w")


def setup_config() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def requirements(text: str) -> list[Requirement]:
    return [Requirement(line) for line in text.split("\n") if line.strip()]


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def project_files() -> list[Path]:
    """What git tracks or would track; in an unpacked archive, every file."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        files = [ROOT / name for name in listed]
    except (OSError, subprocess.CalledProcessError):
        files = [path for path in ROOT.rglob("*") if not SKIPPED & set(path.relative_to(ROOT).parts)]
    return [path for path in files if path.is_file()]


def yaml_files() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "recipes").rglob("*.yaml"))


def test_extras():
    extras = setup_config()["options.extras_require"]
    assert {"fast", "lora", "metrics", "offline", "dev"} <= set(extras)
    assert {canonicalize_name(r.name) for r in requirements(extras["dev"])} >= {"pytest", "ruff", "mypy", "hypothesis"}


def test_constraints_cover_every_requirement_within_its_range():
    config, pins = setup_config(), constraints()
    texts = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    for requirement in [r for text in texts for r in requirements(text)]:
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} is missing in constraints.txt"
        (version,) = (spec.version for spec in pin.specifier)
        assert requirement.specifier.contains(version), f"{pin} is outside {requirement}"


def test_constraints_are_exact_and_name_no_host():
    for pin in constraints().values():
        assert [spec.operator for spec in pin.specifier] == ["=="], str(pin)
        assert pin.url is None and "+" not in str(pin.specifier), str(pin)


def test_accelerate_config_is_accepted_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = load_config_from_file(str(ROOT / "accelerate_config.yaml"))
    assert (config.num_processes, config.mixed_precision, config.use_cpu) == (1, "no", False)
    assert config.distributed_type == "NO"


@pytest.mark.parametrize("name", [*yaml_files(), "accelerate_config.yaml"])
def test_yaml_parses(name):
    assert isinstance(yaml.safe_load((ROOT / name).read_text(encoding="utf-8")), dict)


def test_makefile_targets_and_ci():
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test", "lint", "clean", "help"):
        assert re.search(rf"^{target}:", rules, re.MULTILINE), target
    listing = subprocess.run(
        ["make", "-s", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True
    ).stdout
    assert "make demo" in listing and "make test" in listing
    ci = ROOT / ".ci" / "run"
    assert ci.stat().st_mode & 0o111, ".ci/run must be executable"
    assert "make test" in ci.read_text(encoding="utf-8")


@pytest.mark.parametrize("python", ["no-such-python", "false"])
def test_make_without_a_usable_python_is_one_line(tmp_path, python):
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    command = ["make", "-s", "-C", str(tmp_path), f"PYTHON={python}", "lint"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "error: pess_hf needs Python 3.11 or newer" in done.stderr.splitlines()[0]
    assert not (tmp_path / ".venv").exists()


def test_licence_is_whole():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_no_path_of_somebodys_machine():
    found = []
    for path in project_files():
        if path.suffix not in TEXT:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert found == []


def sources() -> list[Path]:
    return [path for folder in ("pess_hf", "recipes") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_no_file_over_400_lines():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def body_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its signature and docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_no_function_body_over_40_lines():
    found = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and body_length(node) > 40:
                found[f"{path.relative_to(ROOT)}:{node.name}"] = body_length(node)
    assert found == {}


def test_pip_takes_the_folder_for_a_project():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    assert build["build-backend"] == "setuptools.build_meta"
