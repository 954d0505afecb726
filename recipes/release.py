"""Check a finished run and publish it: model, tokenizer, card and metrics in one commit."""

from __future__ import annotations

from pess_hf.arguments import parse_recipe_args
from pess_hf.cli import run_recipe
from pess_hf.hub_upload import HubError
from pess_hf.release import Release, ReleaseArguments, files_to_delete, prepare_release, publish


def main(args: list[str] | None = None) -> None:
    """Check, list, publish."""
    (release_args,) = parse_recipe_args(ReleaseArguments, args, __doc__)
    release = prepare_release(release_args)
    print(release.listing())
    if release_args.dry_run:
        print(would_delete(release, release_args))
        print(f"dry run: nothing was sent to {release_args.repo_id}")
        return
    published = publish(release, release_args.repo_id, release_args.private)
    print("published" if published.is_new else "nothing had changed; no commit was made")
    print(published.url)


def would_delete(release: Release, args: ReleaseArguments) -> str:
    """What the commit would delete, in a line; a dry run also works where the Hub cannot be asked."""
    try:
        gone = files_to_delete(release, args.repo_id, args.private)
    except HubError as error:
        return f"not known: what would be deleted ({error})"
    if gone is None:
        return f"would be deleted there: nothing; {args.repo_id} does not exist, or this token may not see it"
    return f"would be deleted there: {', '.join(gone) or 'nothing'}"


if __name__ == "__main__":
    run_recipe(main)
