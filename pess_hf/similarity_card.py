"""The model card of a sentence encoder that `recipes/train_similarity.py` trained, without its data's sentences."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCardData

from pess_hf.calibration import read_calibration
from pess_hf.card_text import cell, number
from pess_hf.run_folder import as_hub_id, read_run_folder

_TEXT = """\
# Sentence encoder for persona matching

Tells whether two persona sentences say the same; contradictions are meant to score low. Fine-tuned from {base} with
sentence-transformers on labelled sentence pairs (entailment, neutral, contradiction) by `recipes/train_similarity.py`
of pess_hf.

## Usage

```bash
accelerate launch recipes/train_extractor.py --similarity_model FOLDER_OR_ID{threshold} ...
```

## Measured on held-out premises

| figure | value |
| --- | ---: |
{rows}

No held-out premise was trained on, neither as a premise nor as a hypothesis. `unseen`: the hypothesis was not trained
on either. `before`: the encoder that training started from.

## Limits

Persona sentences of Dialogue NLI come from Persona-Chat: an encoder trained on them has seen sentences of that data
set's personas, so measure a model trained with it by another encoder too. Labels of such pairs are made from
annotated triples and are noisy. English only.
"""


def write_similarity_card(run_dir: str | Path) -> Path:
    """Write the card of a trained encoder into the `README.md` of its folder.

    Args:
        run_dir: The folder that the recipe wrote, with `config.json`, `metrics.json` and `run.json`.

    Returns:
        The file that was written.

    Raises:
        PessError: If a file is missing or broken.

    Example:
        >>> write_similarity_card("runs/similarity")  # doctest: +SKIP
        PosixPath('runs/similarity/README.md')
    """
    folder = Path(run_dir)
    run = read_run_folder(folder)
    base = as_hub_id(run.arguments.get("model_name_or_path"), near=folder)
    calibration = read_calibration(folder)
    data = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        language="en",
        base_model=base,
        tags=["sentence-transformers", "pess_hf", "persona"],
    )
    body = _TEXT.format(
        base=f"[{base}](https://huggingface.co/{base})" if base else "a local encoder",
        threshold=f" --similarity_threshold {calibration.threshold:g}" if calibration else "",
        rows="\n".join(f"| {cell(name)} | {number(value)} |" for name, value in run.metrics.items()),
    )
    path = folder / "README.md"
    path.write_text(f"---\n{data.to_yaml()}\n---\n\n{body}", encoding="utf-8")
    return path
