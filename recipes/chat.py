"""Talk to a supporter, or let it answer one conversation from a JSON file of chat messages."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pess_hf.arguments import parse_recipe_args
from pess_hf.cli import prepare_output_dir, run_recipe, write_json
from pess_hf.errors import PessError
from pess_hf.json_files import read_json
from pess_hf.safety import NOTICE


@dataclass
class ChatArguments:
    """Who answers, and what."""

    model: str = field(metadata={"help": "Generator: Hub id or folder."})
    extractor: str | None = field(
        default=None, metadata={"help": "Persona extractor; without one there is no persona."}
    )
    input: str | None = field(
        default=None, metadata={"help": "JSON list of messages with role and content; without one you type."}
    )
    output: str | None = field(default=None, metadata={"help": "JSON file for the answer to --input."})
    strategy: str | None = field(default=None, metadata={"help": "Begin every reply with this strategy."})
    num_beams: int = field(default=1, metadata={"help": "Beams; 1 is greedy."})
    do_sample: bool = field(default=False, metadata={"help": "Sample as PAL does: top-k 10, top-p 0.9, 0.5 warm."})
    max_new_tokens: int = field(default=50, metadata={"help": "Tokens of a reply at most, its strategy included."})
    seed: int = field(default=42, metadata={"help": "Seed of the sampling."})

    def __post_init__(self) -> None:
        """Check what does not fit together."""
        if self.output is not None and self.input is None:
            raise PessError("output: expected --input with it, found none. Leave it out to type the messages.")
        for name in ("num_beams", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise PessError(f"{name}: expected 1 or more, found {getattr(self, name)}.")

    def generation(self) -> dict[str, Any]:
        """What is passed to `generate`."""
        settings: dict[str, Any] = {"num_beams": self.num_beams, "max_new_tokens": self.max_new_tokens}
        if self.do_sample:
            pal = {"top_k": 10, "top_p": 0.9, "temperature": 0.5, "repetition_penalty": 1.03}
            settings |= {"do_sample": True, **pal}
        return settings if self.strategy is None else {**settings, "strategy": self.strategy}


def main(args: list[str] | None = None) -> None:
    """Answer a file or whoever types."""
    (parsed,) = parse_recipe_args(ChatArguments, args, __doc__)
    messages = None if parsed.input is None else read_json(parsed.input, "Write a list.")
    if parsed.output is not None:
        prepare_output_dir(Path(parsed.output).absolute().parent)
    chat = open_pipeline(parsed)
    if messages is None:
        talk(chat, parsed.generation())
        return
    answer = chat(messages, **parsed.generation())
    show(answer)
    if parsed.output is not None:
        write_json(parsed.output, answer)


def open_pipeline(args: ChatArguments) -> Any:
    """The models behind the conversation."""
    from transformers import AutoTokenizer, pipeline, set_seed

    from pess_hf.open_generator import open_generator

    set_seed(args.seed)
    make: Any = pipeline  # its overloads know the tasks of transformers alone
    model, tokenizer = open_generator(args.model), AutoTokenizer.from_pretrained(args.model)
    return make("emotional-support", model=model, tokenizer=tokenizer, extractor=args.extractor)


def talk(chat: Any, generation: dict[str, Any]) -> None:
    """Read lines until an empty one or the end of the input."""
    print(f"{NOTICE}\nAn empty line ends the conversation.\n")
    messages: list[dict[str, Any]] = []
    while (line := ask()).strip():
        messages.append({"role": "user", "content": line})
        answer = chat(messages, **generation)
        show(answer)
        if answer["reply"]:
            messages.append({"role": "assistant", "content": answer["reply"], "strategy": answer["strategy"]})


def ask() -> str:
    """One line of the seeker; empty at the end of the input."""
    print("you: ", end="", flush=True)
    return sys.stdin.readline()


def show(answer: dict[str, Any]) -> None:
    """Print the persona used and the reply."""
    for sentence in answer["persona"]:
        print(f"  persona: {sentence}")
    strategy = "safety check" if answer["safety"] else answer["strategy"]
    print(f"supporter [{strategy}]: {answer['reply']}")


if __name__ == "__main__":
    run_recipe(main)
