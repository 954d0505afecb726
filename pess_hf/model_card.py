"""Model cards: the metadata and the text of a published model, made from a finished run folder without a network."""

from __future__ import annotations

import difflib
import logging
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from pess_hf.card_text import cell, duration, literal, number
from pess_hf.errors import PessError
from pess_hf.redaction import without_paths, without_secrets
from pess_hf.run_folder import RunFolder, as_hub_id, read_run_folder
from pess_hf.text import DEFAULT_SEPARATOR

logger = logging.getLogger(__name__)

KINDS = ("extractor", "generator")
_TASKS = {"extractor": "Persona extraction", "generator": "Emotional support response generation"}
_TAGS = {
    "extractor": ["pess", "pess_hf", "persona-extraction", "dialogue"],
    "generator": ["pess", "pess_hf", "emotional-support", "dialogue", "persona"],
}
# Always in the table, blank where nothing was measured; other measured numbers follow.
_RESULTS = {
    "extractor": ("persona_precision", "persona_recall", "persona_f1", "loss"),
    "generator": ("perplexity", "strategy_accuracy", "bleu_2", "bleu_4", "rouge_l", "persona_similarity", "loss"),
}
_LABELS = {"bleu_2": "BLEU-2", "bleu_4": "BLEU-4", "rouge_l": "ROUGE-L", "persona_f1": "Persona F1", "nll": "NLL"}
_NOT_RESULTS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
_HYPER_PARAMETERS = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm",
    "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps", "pess_start",
    "one_to_one_matching", "in_batch_negatives", "rollout_steps", "rollout_max_new_tokens", "label_smoothing_factor",
    "bf16", "fp16", "lora_rank", "lora_alpha", "lora_dropout", "lora_target_modules", "seed",
)  # fmt: skip
# Option of evaluate_generator.py -> argument of train_generator.py that it has to equal.
_AS_MEASURED = {
    "split": "test_split", "max_dialogues": "max_test_dialogues", "max_replies": "max_test_replies",
    "num_beams": "generation_num_beams", "max_new_tokens": "max_target_length", "persona_source": "persona_source",
} | {name: name for name in ("max_context_length", "max_persona_length")}  # fmt: skip


class PessModelCardData(ModelCardData):
    """The YAML head of a card; `base_model` is kept only when it can be an id on the Hub.

    Args:
        kind: "extractor" or "generator"; sets the tags.
        base_model: The id of the model that training started from. A local path is dropped with a warning.
        adapter: Whether the repository holds a PEFT adapter only.
        tags: Further tags.
        **fields: Any other field of `huggingface_hub.ModelCardData`.

    Example:
        >>> data = PessModelCardData(base_model="facebook/bart-base")
        >>> data.base_model, data.base_model_relation, data.library_name
        ('facebook/bart-base', 'finetune', 'transformers')
    """

    def __init__(
        self,
        *,
        kind: str = "extractor",
        base_model: str | None = None,
        adapter: bool = False,
        tags: list[str] | None = None,
        **fields: Any,
    ) -> None:
        known = as_hub_id(base_model, bare=True)
        if base_model and known is None:
            logger.warning("base_model is not an id on the Hub and is left out of the card; pass base_model=.")
        fields.setdefault("library_name", "peft" if adapter else "transformers")
        fields.setdefault("pipeline_tag", "text-generation")
        if known:
            fields.setdefault("base_model_relation", "adapter" if adapter else "finetune")
        super().__init__(base_model=known, tags=[*_TAGS[kind], *(tags or [])], **fields)


@dataclass(frozen=True)
class CardOverrides:
    """What the run folder cannot know; each may be given to `render_model_card` by name.

    Attributes:
        model_id: The repository that the model will be published as; the usage block names it.
        model_name: The title; by default the last part of `model_id`, else the name of the folder.
        license: The licence of the weights; left out when not given.
        base_model: The id on the Hub of the model that training started from, when the run was given a path.
        datasets: Ids on the Hub of the training data.
        language: Language code or codes.
        tags: Further tags.
        train_data_license: The licence of the training data, in words.
        evaluation_command: The command that measures the numbers again.
    """

    model_id: str | None = None
    model_name: str | None = None
    license: str | None = None
    base_model: str | None = None
    datasets: str | list[str] | None = None
    language: str | list[str] | None = None
    tags: list[str] | None = None
    train_data_license: str | None = None
    evaluation_command: str | None = None


@dataclass(frozen=True)
class ResultRow:
    """One measured number, before and after the PESS terms; None where it was not measured."""

    name: str
    value: float | None
    before: float | None

    @property
    def label(self) -> str:
        """The metric in words."""
        return _LABELS.get(self.name, self.name.replace("_", " ").capitalize())


def render_model_card(run_dir: str | Path | RunFolder, kind: str | None = None, **overrides: Any) -> str:
    """Write the model card of a finished run, from its folder alone and without a network.

    Args:
        run_dir: The folder that a recipe wrote: ``config.json`` (or ``adapter_config.json``), ``metrics.json``,
            ``run.json`` and, where present, ``trainer_state.json``; or what such a folder would say.
        kind: "extractor" or "generator"; read from the folder by default.
        **overrides: What the folder cannot know, see `CardOverrides`.

    Returns:
        The whole card: YAML head and Markdown. A number that was not measured is a blank.

    Raises:
        PessError: If a file is missing or broken, `kind` or the name of an override is unknown, or an id is malformed.

    Example:
        >>> import json, tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, value in {"config": {}, "metrics": {"test_persona_f1": 0.5}, "run": {}}.items():
        ...     _ = (folder / f"{name}.json").write_text(json.dumps(value))
        >>> "| Persona F1 | 0.5000 |" in render_model_card(folder, license="mit")
        True
    """
    given = _overrides(overrides)
    run = run_dir if isinstance(run_dir, RunFolder) else read_run_folder(run_dir)
    kind = kind_of(run, kind)
    template = _environment().get_template(f"{kind}_card.md.jinja")
    rows = _result_rows(run, kind)
    data = _card_data(run, kind, given, rows)
    body = template.render(_context(run, kind, given, rows, data))
    return without_secrets(f"---\n{data.to_yaml()}\n---\n\n{body}")


def write_model_card(run_dir: str | Path, kind: str | None = None, **overrides: Any) -> Path:
    """Render the card of a finished run into its ``README.md``.

    Args:
        run_dir: The folder that a recipe wrote.
        kind: "extractor" or "generator"; read from the folder by default.
        **overrides: See `CardOverrides`.

    Returns:
        The file that was written.

    Raises:
        PessError: As `render_model_card`.

    Example:
        >>> write_model_card("runs/demo", model_id="me/pess-bart", license="apache-2.0")  # doctest: +SKIP
        PosixPath('runs/demo/README.md')
    """
    card = render_model_card(run_dir, kind, **overrides)
    path = Path(run_dir) / "README.md"
    path.write_text(card, encoding="utf-8")
    return path


def _overrides(given: dict[str, Any]) -> CardOverrides:
    """The overrides, their names checked."""
    known = [field.name for field in fields(CardOverrides)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise PessError(f"model card: unknown field {name!r}. The nearest known one is {near!r}.")
    overrides = CardOverrides(**given)
    for name in ("model_id", "base_model"):
        value = getattr(overrides, name)
        if value is not None and as_hub_id(value, bare=True) is None:
            raise PessError(
                f"model card: expected an id on the Hub for {name}, found {value!r}. Write namespace/name."
            )
    return overrides


def template_text(kind: str) -> str:
    """The template of a card as it stands, example sentences and all.

    Args:
        kind: "extractor" or "generator".

    Returns:
        The Jinja source.

    Example:
        >>> "## Usage" in template_text("extractor")
        True
    """
    environment = _environment()
    loader: Any = environment.loader
    return loader.get_source(environment, f"{kind}_card.md.jinja")[0]


def kind_of(run: RunFolder, kind: str | None = None) -> str:
    """Which of the two cards a run gets: the one asked for, else the one that its config or its recipe names.

    Args:
        run: The run.
        kind: "extractor", "generator" or None.

    Returns:
        "extractor" or "generator".

    Raises:
        PessError: If `kind` is neither.
    """
    if kind is None:
        made = f"{run.config.get('model_type')} {run.run.get('recipe')}"
        return "generator" if "generator" in made else "extractor"
    if kind not in KINDS:
        raise PessError(f"model card: expected kind {' or '.join(KINDS)}, found {kind!r}.")
    return kind


def _environment() -> jinja2.Environment:
    """Where the templates are: inside the package once installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    folders = [package / "model_cards", package.parent / "model_cards"]
    # Markdown, not HTML: escaping would print &quot; in the code blocks.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: "" if value is None else value,
    )
    environment.filters |= {"cell": cell, "number": number, "duration": duration, "literal": literal}
    return environment


def _split(run: RunFolder) -> tuple[str, str]:
    """(key prefix, name) of the part of the data that the numbers were measured on."""
    if any(name.startswith("test_") for name in run.metrics) or not any(n.startswith("eval_") for n in run.metrics):
        return "test_", "test"
    return "eval_", "validation"


def _result_rows(run: RunFolder, kind: str) -> list[ResultRow]:
    """The table of results: the usual numbers first, then whatever else was measured."""
    prefix, _ = _split(run)
    measured = [name.removeprefix(prefix) for name in run.metrics if name.startswith(prefix)]
    further = [name for name in measured if name not in (*_RESULTS[kind], *_NOT_RESULTS)]
    return [
        ResultRow(name, run.metrics.get(prefix + name), run.metrics.get("before_pess_" + name))
        for name in (*_RESULTS[kind], *sorted(further))
    ]


def _eval_results(run: RunFolder, kind: str, rows: list[ResultRow]) -> list[EvalResult]:
    """The measured numbers as the Hub's model-index wants them."""
    measured = _measured_data(run)
    dataset = next(iter(_ids(measured, run)), None)
    name = dataset or ("pess_hf sample" if measured == ["sample"] else "local data")
    return [
        EvalResult(
            task_type="text-generation",
            task_name=_TASKS[kind],
            dataset_type=dataset or name.replace(" ", "-"),
            dataset_name=name,
            dataset_split=_split(run)[1],
            metric_type=row.name,
            metric_name=row.label,
            metric_value=round(row.value, 4),
        )
        for row in rows
        if row.value is not None
    ]


def _ids(names: list[str], run: RunFolder) -> list[str]:
    return [known for name in names if (known := as_hub_id(name, near=run.path))]


def _measured_data(run: RunFolder) -> list[str]:
    """What the numbers were measured on: rows of the training data where no other source is named."""
    return run.sources(f"{_split(run)[1]}_data") or run.train_data


def _base_model(run: RunFolder, given: CardOverrides) -> str | None:
    named = run.adapter.get("base_model_name_or_path"), run.arguments.get("model_name_or_path")
    return given.base_model or next((known for name in named if (known := as_hub_id(name, near=run.path))), None)


def _name(run: RunFolder, given: CardOverrides) -> str:
    return given.model_name or (given.model_id or run.path.resolve().name).split("/")[-1]


def _card_data(run: RunFolder, kind: str, given: CardOverrides, rows: list[ResultRow]) -> PessModelCardData:
    """The YAML head; a field that nothing is known about is left out."""
    results = _eval_results(run, kind, rows)
    datasets = given.datasets or _ids(run.train_data, run)
    english = run.train_data == ["sample"]
    return PessModelCardData(
        kind=kind,
        base_model=_base_model(run, given),
        adapter=bool(run.adapter),
        tags=given.tags,
        datasets=[datasets] if isinstance(datasets, str) else datasets or None,
        language=given.language or ("en" if english else None),
        license=given.license,
        metrics=[result.metric_type for result in results] or None,
        model_name=_name(run, given) if results else None,  # the model-index carries it
        eval_results=results or None,
    )


def _context(
    run: RunFolder, kind: str, given: CardOverrides, rows: list[ResultRow], data: PessModelCardData
) -> dict[str, Any]:
    """Everything that a template may print."""
    arguments = run.arguments
    return {
        "title": _name(run, given),
        "model_id": given.model_id or as_hub_id(arguments.get("hub_model_id")) or ".",
        "base_model": data.base_model,
        "adapter": bool(run.adapter),
        "arguments": arguments,
        "separator": run.config.get("utterance_separator", DEFAULT_SEPARATOR),
        "seeker_prefix": run.config.get("seeker_prefix", "Persona:"),
        "supporter_prefix": run.config.get("supporter_prefix", "System:"),
        "persona_separator": run.config.get("persona_separator", DEFAULT_SEPARATOR),
        "similarity_model": _public_name(arguments.get("similarity_model"), run.path),
        "extractor": _public_name(arguments.get("extractor"), run.path),
        "train_data": _public_data(run),
        "train_data_license": given.train_data_license,
        "hyper_parameters": _hyper_parameters(arguments),
        "rows": rows,
        "compared": any(row.before is not None for row in rows),
        "split": _split(run)[1],
        "command": without_paths(" ".join(str(run.run.get("command") or "").split())),
        "evaluation_command": given.evaluation_command or _evaluation_command(run, kind, given),
        "run": run.run,
        "state": run.state,
    }


def _hyper_parameters(arguments: dict[str, Any]) -> dict[str, Any]:
    """Those that the run had; LoRA's only where it trained adapters."""
    names = [name for name in _HYPER_PARAMETERS if arguments.get("use_lora") or not name.startswith("lora_")]
    return {name: arguments[name] for name in names if arguments.get(name) is not None}


def _evaluation_command(run: RunFolder, kind: str, given: CardOverrides) -> str:
    """How to measure again; data that nobody else can reach is named by a word to fill in."""
    measured = _measured_data(run)
    names = measured if measured == ["sample"] else _ids(measured, run) or ["DATA"]
    options: dict[str, Any] = {"model": given.model_id or ".", "data": shlex.join(names)}
    if kind == "extractor":
        arguments = run.arguments
        options["split"] = arguments.get(f"{_split(run)[1]}_split")
        if arguments.get("held_out_fraction"):
            options |= {name: arguments.get(name) for name in ("held_out_fraction", "seed")}
        options["max_rows"] = arguments.get("max_test_rows")
        options |= {name: arguments.get(name) for name in ("max_source_length", "similarity_threshold")}
        options["one_to_one"] = "true" if arguments.get("one_to_one_matching") else None
    else:
        options |= {name: run.arguments.get(argument) for name, argument in _AS_MEASURED.items()}
        options["extractor"] = "EXTRACTOR" if options["persona_source"] == "inferred" else None
    options["similarity_model"] = as_hub_id(run.arguments.get("similarity_model"), near=run.path)
    given_options = [f"--{name} {value}" for name, value in options.items() if value is not None]
    return " ".join(["python", f"recipes/evaluate_{kind}.py", *given_options, "--output metrics.json"])


def _public_name(name: object, near: Path) -> str | None:
    """A name as it may be printed: "sample" and Hub ids as they are, of a path nothing but that it is local."""
    if not name:
        return None
    return "sample" if name == "sample" else as_hub_id(name, near=near, bare=True) or "local"


def _public_data(run: RunFolder) -> str | None:
    """The training data as a card may print it; "local" as soon as one source is a file."""
    # A bare name is rather a file beside the run than one of the few data sets without a namespace.
    names = ["sample" if name == "sample" else as_hub_id(name, near=run.path) or "local" for name in run.train_data]
    return "local" if "local" in names else ", ".join(names) or None
