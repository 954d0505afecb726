"""Recipes imported by path, and the tiny model and rows that their tests run on."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from tiny_extractor import rows, tiny_bart
from tiny_tokenizers import byte_level_tokenizer

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes"
SIDES = ("your", "partner")


def recipe(name):
    """A recipe's module; `experiments/<name>` is one in a folder."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name.replace('/', '_')}", RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def save_model(folder):
    """A tiny BART and its tokenizer."""
    model = tiny_bart(seed=3, init_std=0.7)
    model.generation_config.max_new_tokens = 12
    model.save_pretrained(folder)
    byte_level_tokenizer().save_pretrained(folder)
    return str(folder)


def write_rows(path, number=8, **extra):
    """The tiny rows as JSONL, two speakers a dialogue, under the ids of Persona-Chat"""
    made = [
        {**row, "dialogue_id": f"personachat/valid/{n // 2}/{SIDES[n % 2]}", **extra}
        for n, row in enumerate(rows(number))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return str(path)


def flags(**settings):
    """Settings as a command line."""
    words = []
    for name, value in settings.items():
        words += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return words


def train_flags(model, data, folder, **settings):
    """A training of two steps on the CPU."""
    common = {
        "model_name_or_path": model, "train_data": data, "output_dir": folder, "max_steps": 2, "use_cpu": True,
        "per_device_train_batch_size": 2, "per_device_eval_batch_size": 4, "max_source_length": 96,
        "max_target_length": 32, "disable_tqdm": True, "save_strategy": "no", "dataloader_pin_memory": False,
        "rollout_max_new_tokens": 8, "pess_start": 0.5, "logging_steps": 1, "report_to": "none",
    }  # fmt: skip
    return flags(**(common | settings))


def launch_here(name, started):
    """In place of a launcher's process: runs the recipe in this one, and notes the settings in `started`."""

    def start(path, log):
        started.append(yaml.safe_load(path.read_text()))
        with log.open("a") as file, contextlib.redirect_stdout(file):
            recipe(name).main(["--config", str(path)])
        return 0

    return start


def launch(name, arguments, cwd, processes=1):
    """Run a recipe in a process of its own, or in several (gloo)."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(RECIPES / f"{name}.py"), *arguments]
    if processes > 1:  # accelerate starts several on a CPU only under the name of several GPUs
        config = Path(tempfile.mkdtemp()) / "accelerate.yaml"
        config.write_text(f"distributed_type: MULTI_GPU\nuse_cpu: true\nnum_processes: {processes}\n")
        settings = ["--quiet", "--config_file", str(config), "--main_process_port", "0"]
        command = [command[0], "-m", "accelerate.commands.launch", *settings, *command[1:]]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280)
