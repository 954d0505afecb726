"""The shipped accelerate configs: accepted by accelerate, and read by its launcher as they say."""

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from recipe_runs import ROOT

FOLDER = ROOT / "recipes" / "accelerate"
#: Name, how accelerate calls it, and what the launcher turns on.
CONFIGS = {
    "cpu-2": ("MULTI_GPU", "multi_gpu"),
    "ddp": ("MULTI_GPU", "multi_gpu"),
    "fsdp2": ("FSDP", "use_fsdp"),
    "zero2": ("DEEPSPEED", "use_deepspeed"),
    "zero3": ("DEEPSPEED", "use_deepspeed"),
}


def test_every_config_is_tested():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_accelerate_loads_it(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert (str(config.distributed_type).split(".")[-1], config.num_processes) == (CONFIGS[name][0], 2)
    assert config.use_cpu == (name == "cpu-2")
    assert config.mixed_precision == "no"


@pytest.mark.parametrize("name", CONFIGS)
def test_the_launcher_would_start_what_it_says(name):
    command = ["--config_file", str(FOLDER / f"{name}.yaml"), "script.py"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    turned_on = [way for way in ("multi_gpu", "use_fsdp", "use_deepspeed") if getattr(args, way)]
    assert (turned_on, args.num_processes) == ([CONFIGS[name][1]], 2)


def test_one_process_by_default():
    command = ["--config_file", str(ROOT / "accelerate_config.yaml"), "script.py"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    assert (args.num_processes, args.multi_gpu, args.use_fsdp, args.use_deepspeed) == (1, False, False, False)


def test_fsdp_is_version_2_and_saves_a_whole_checkpoint():
    settings = load_config_from_file(str(FOLDER / "fsdp2.yaml")).fsdp_config
    assert (settings["fsdp_version"], settings["fsdp_state_dict_type"]) == (2, "FULL_STATE_DICT")


@pytest.mark.parametrize(("name", "stage"), [("zero2", 2), ("zero3", 3)])
def test_zero_leaves_accumulation_to_the_training_arguments(name, stage):
    settings = load_config_from_file(str(FOLDER / f"{name}.yaml")).deepspeed_config
    assert settings["zero_stage"] == stage
    assert not {"gradient_accumulation_steps", "gradient_clipping"} & set(settings)
