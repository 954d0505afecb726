"""Where results that take minutes are kept between runs: beside the cache of `datasets`, under a fingerprint."""

from __future__ import annotations

from pathlib import Path


def cache_file(kind: str, fingerprint: str, folder: str | Path | None = None) -> str | None:
    """The file that a result is kept in, its folder made; None where `datasets.disable_caching()` was called.

    Args:
        kind: What is kept, a folder in the cache of `datasets`.
        fingerprint: Of everything that the result depends on.
        folder: A folder of your own in place of that one.

    Example:
        >>> Path(cache_file("personas", "0123456789abcdef")).name  # doctest: +SKIP
        '0123456789abcdef.arrow'
    """
    from datasets import config, is_caching_enabled

    if folder is None and not is_caching_enabled():
        return None
    parent = Path(folder) if folder is not None else Path(config.HF_DATASETS_CACHE) / f"pess_hf-{kind}"
    parent.mkdir(parents=True, exist_ok=True)
    return str(parent / f"{fingerprint}.arrow")
