"""The metric `persona_match` as a Space on the Hub, from where `evaluate.load` takes it."""

from __future__ import annotations

import shutil
from pathlib import Path

from huggingface_hub import HfApi

from pess_hf import __version__
from pess_hf.hub_files import Content
from pess_hf.hub_upload import on_hub, upload_in_one_commit

_README = """\
---
title: persona_match
emoji: 🧩
colorFrom: blue
colorTo: green
sdk: gradio
app_file: app.py
pinned: false
tags:
- evaluate
- metric
description: Persona precision, recall and F1 by sentence-embedding similarity.
---

# persona_match

Compares generated persona sentences with reference ones. Two sentences agree where the cosine of their embeddings
reaches a threshold. Precision is the share of generated sentences that agree with some reference, recall the share of
reference sentences that some generated one reaches, each averaged over dialogues; F1 comes from the two averages.

```python
import evaluate

metric = evaluate.load("{repo_id}")
print(metric.compute(predictions=[["I own two dogs."]], references=[["I have two dogs.", "I play chess."]]))
```

Loading it runs the code of this repository and needs pess_hf installed. The sentence encoder (`encoder=`, by default
sentence-transformers/all-MiniLM-L6-v2) and the threshold (`threshold=`) are part of the number: scores at another
threshold or with another encoder do not compare. Sentence similarity cannot see contradiction well.
"""
_TEXTS = ("README.md", "app.py", "requirements.txt")
_APP = """\
import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load("persona_match.py"))
"""


def write_metric_space(
    folder: str | Path, repo_id: str = "persona_match", requirement: str = f"pess_hf=={__version__}"
) -> list[Path]:
    """Write the folder of a Space that holds the metric: module, requirements, page and a small app.

    Args:
        folder: Where to; made where it is missing. `evaluate.load` opens `folder/persona_match.py` too.
        repo_id: The name under which the page shows how to load it.
        requirement: How the Space installs pess_hf; a git address where your registry does not have it.

    Returns:
        The files.

    Raises:
        OSError: If the folder cannot be written.

    Example:
        >>> import tempfile
        >>> [path.name for path in write_metric_space(tempfile.mkdtemp())]
        ['README.md', 'app.py', 'persona_match.py', 'requirements.txt']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # evaluate reads the imports of the module and, with `requirements.txt`, the Space installs them.
    module = Path(__file__).resolve().parent / "persona_match" / "persona_match.py"
    shutil.copyfile(module, folder / "persona_match.py")
    texts = (_README.format(repo_id=repo_id), _APP, f"{requirement}\nevaluate\n")
    for name, text in zip(_TEXTS, texts, strict=True):
        (folder / name).write_text(text, encoding="utf-8")
    return sorted(folder / name for name in (*_TEXTS, "persona_match.py"))


def publish_metric(folder: str | Path, repo_id: str, private: bool | None = None, token: str | None = None) -> str:
    """Publish a folder that `write_metric_space` wrote as a Space, in one commit; write it first where it is missing.

    Args:
        folder: The Space's folder.
        repo_id: The Space, namespace/name; made where there is none.
        private: Whether a Space that is made now is private.
        token: The token; by default that of this machine.

    Returns:
        The Space's page.

    Raises:
        PessError: If the Hub refuses or cannot be reached.

    Example:
        >>> publish_metric("runs/persona_match", "me/persona_match")  # doctest: +SKIP
        'https://huggingface.co/spaces/me/persona_match'
    """
    folder = Path(folder)
    if not (folder / "persona_match.py").exists():
        write_metric_space(folder, repo_id)
    files: dict[str, Content] = {name: folder / name for name in (*_TEXTS, "persona_match.py")}
    api = HfApi(token=token)

    def create() -> str:
        return str(api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True))

    url: str = on_hub(create, repo_id, token, tries=2)
    upload_in_one_commit(repo_id, files, "Publish the metric", token=token, repo_type="space")
    return url
