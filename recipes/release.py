"""Check a finished run and publish it: model, tokenizer, card and metrics in one commit."""

from __future__ import annotations

from pess_hf.arguments import parse_recipe_args
from pess_hf.cli import run_recipe
from pess_hf.release import ReleaseArguments, prepare_release, publish


def main(args: list[str] | None = None) -> None:
    """Check, list, publish."""
    (release_args,) = parse_recipe_args(ReleaseArguments, args, __doc__)
    release = prepare_release(release_args)
    print(release.listing())
    if release_args.dry_run:
        print(f"dry run: nothing was sent to {release_args.repo_id}")
        return
    published = publish(release, release_args.repo_id, release_args.private)
    print("published" if published.is_new else "nothing had changed; no commit was made")
    print(published.url)


if __name__ == "__main__":
    run_recipe(main)
