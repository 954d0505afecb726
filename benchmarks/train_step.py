"""What a PESS step costs, in plain likelihood steps: straightforward, and ours by `rollout_steps`.

    python benchmarks/train_step.py --json runs/train_step.json --plot runs/train_step.png

Six ways to train take turns in one process over the same micro-batches of real dialogues (folder PESS_DATA, by default
`../shared/data`) or, where that is absent, of the embedded corpus: plain (stock `Seq2SeqTrainer` and BART),
straightforward (`straightforward_step.py`), and `PessTrainer` with rollouts for 1, 4, 8 and 16 micro-batches at once.
A block is 16 micro-batches, a whole number of windows of each, through the data loader, `get_batch_samples`,
`training_step`, clipping and AdamW. The figures are medians over rounds of a block's time per step.

The learning rate is 0: the model, and so what it writes, stays the same for all. What an untrained model writes
matches nothing, which would leave two of the three sequences out. So by default (`--rollouts scripted`) it generates,
always to the last token, but half of the reference and sentences of another dialogue are read in place of what it
wrote: every dialogue then has all three sequences and a full-length greedy decoding, which is what the floor counts
and the most that a PESS step can cost. With `--rollouts model` the model is taught the benchmark's own dialogues first
(`--teach_steps`) and taken at its word. How many rows and tokens there were is printed and written.

Embedding and matching is measured apart: the small model is smaller than the sentence encoder, whose time would hide
the rest. `seconds` and `ratio_to_plain` are without it, for the straightforward step too; the table shows beside them
what it takes, its share, and the ratio with it. The sentence cache starts empty in every block, as in a first epoch.

Checked first: for the same rollouts, ours and the straightforward step have the same terms and gradients (1e-5).
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import transformers
from bench_model import build_model, load_rows, machine, scripted
from straightforward_step import InOrder, Personas, PlainTrainer, StraightforwardTrainer
from train_step_report import WINDOWS, Block, plot, report, summarise

from pess_hf.data.collator import PersonaCollator
from pess_hf.decoder_batch import DecoderBatch, Rollout
from pess_hf.modeling_extractor import PessExtractor
from pess_hf.plots import check_picture_path
from pess_hf.rollout_window import ROLLOUT_KEY, TokenIds
from pess_hf.similarity import PersonaMatch, PersonaMatcher
from pess_hf.trainer import PessTrainer
from pess_hf.training_args import PessTrainingArguments

BLOCK = 16  # micro-batches: a whole number of each window
TERMS = ("nll", "completeness", "consistency")


class TimedMatcher(PersonaMatcher):
    """Counts the seconds, on the clock and of the CPU, that matching takes."""

    seconds = cpu_seconds = 0.0

    def match(self, *args: Any) -> list[PersonaMatch]:
        """As `PersonaMatcher.match`."""
        start, cpu_start = time.perf_counter(), time.process_time()
        matches = super().match(*args)
        self.seconds += time.perf_counter() - start
        self.cpu_seconds += time.process_time() - cpu_start
        return matches

    def start_anew(self) -> None:
        """Forget all sentences and times."""
        self._cache.clear()
        self.seconds, self.cpu_seconds, self.encoder_calls = 0.0, 0.0, 0


class OursTrainer(InOrder, PessTrainer):
    """`PessTrainer`, counting what its steps are made of."""

    matcher: TimedMatcher
    script: Any = None
    references: Personas
    count: Counter[str]
    rollout_seconds = 0.0

    def _roll_out(self, batches: list[dict[str, Any]], token_ids: TokenIds | None = None) -> list[list[Rollout]]:
        self.references = [persona for batch in batches for persona in batch["persona"]]
        start = time.perf_counter() - self.matcher.seconds
        rollouts = super()._roll_out(batches, token_ids)
        self.rollout_seconds += time.perf_counter() - self.matcher.seconds - start
        self.count["rollouts"] += sum(map(len, rollouts))
        self.count["rollout_tokens"] += sum(len(one.token_ids) - 1 for batch in rollouts for one in batch)
        return rollouts

    def decode_personas(self, token_ids: Any) -> Personas:
        """As `PessTrainer`, or what the script says instead."""
        personas = super().decode_personas(token_ids)
        return personas if self.script is None else self.script(self.references)

    def _decoder_batch(self, inputs: dict[str, Any], rollouts: list[Rollout] | None) -> DecoderBatch:
        batch = super()._decoder_batch(inputs, rollouts)
        self.count["steps"] += 1
        self.count["reference"] += len(inputs["persona"])
        self.count["new_target"] += len(batch.target_dialogues or [])
        self.count["generated"] += len(batch.pairs)
        self.count["source_tokens"] += int(inputs["attention_mask"].sum())
        self.count["target_tokens"] += int(inputs["labels"].ne(-100).sum())
        return batch


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d_model", type=int, default=256)
    parser.add_argument("--layers", type=int, default=3, help="layers of the encoder, and of the decoder")
    parser.add_argument("--vocab_size", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=8, help="dialogues in a micro-batch")
    parser.add_argument("--source_tokens", type=int, default=160, help="source tokens at most")
    parser.add_argument("--target_tokens", type=int, default=48, help="target tokens at most, also generated ones")
    parser.add_argument("--threshold", type=float, default=0.6, help="similarity threshold")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of 16 micro-batches for each way")
    parser.add_argument("--rollouts", choices=["scripted", "model"], default="scripted")
    parser.add_argument("--teach_steps", type=int, default=250, help="likelihood steps first, with --rollouts model")
    parser.add_argument("--data", choices=["auto", "sample"], default="auto")
    parser.add_argument("--similarity_model", default=PessTrainingArguments.similarity_model)
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves torch's choice")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16 is autocast")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--plot", type=Path, help="draw cost against rollout_steps here (extra metrics)")
    return parser.parse_args(argv)


def build_trainers(
    args: argparse.Namespace, rows: list[dict[str, Any]], tokenizer: Any, folder: str, encoder: Any = None
) -> tuple[PlainTrainer, StraightforwardTrainer, OursTrainer]:
    """A trainer for each way; ours serves all windows. All start from the same, taught, weights."""
    import datasets

    common: dict[str, Any] = {
        "args": PessTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=args.batch,
            rollout_max_new_tokens=args.target_tokens,
            similarity_threshold=args.threshold,
            learning_rate=0.0,
            pess_start=0.0,
            bf16=args.dtype == "bfloat16",
            use_cpu=args.device == "cpu",
            remove_unused_columns=False,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
        ),
        "data_collator": PersonaCollator(
            tokenizer, max_source_length=args.source_tokens, max_target_length=args.target_tokens
        ),
        "train_dataset": datasets.Dataset.from_list(rows),
        "processing_class": tokenizer,
    }
    plain = PlainTrainer(build_model(args, tokenizer), **common)
    if args.rollouts == "model":
        teach(plain, args.teach_steps)
    else:  # the end token is never the best: every decoding runs to the last token
        plain.model.final_logits_bias[:, tokenizer.eos_token_id] = -10.0
    straightforward = StraightforwardTrainer(copy.deepcopy(plain.model), **common)
    straightforward.matcher = TimedMatcher(encoder or args.similarity_model, args.threshold, cache_size=0)
    model = PessExtractor(copy.deepcopy(plain.model.config))
    model.load_state_dict(plain.model.state_dict())
    plain.matcher = straightforward.matcher  # never asked
    ours = OursTrainer(model, matcher=TimedMatcher(straightforward.matcher.encoder, args.threshold), **common)
    ours.count = Counter()
    if args.rollouts == "scripted":
        straightforward.script = ours.script = scripted(rows)
    return plain, straightforward, ours


def teach(trainer: Any, steps: int) -> None:
    """Likelihood steps over the benchmark's dialogues."""
    optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=1e-3)
    for step in range(steps):
        if step % BLOCK == 0:
            iterator = iter(trainer.get_train_dataloader())
        [inputs], num_items = trainer.get_batch_samples(iterator, 1, trainer.args.device)
        loss = trainer.training_step(trainer.model, inputs, num_items)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 49:
            print(f"taught {step + 1} of {steps} steps, loss {loss.item():.2f}", file=sys.stderr)


def check(straightforward: Any, ours: Any) -> tuple[dict[str, float], dict[str, float]]:
    """How far ours is from the straightforward step for the same rollouts, without dropout, over two micro-batches.

    Returns:
        The largest difference of each term and of the gradient, relative; and the largest value of each term.
    """
    worst = dict.fromkeys((*TERMS, "gradient"), 0.0)
    iterator = iter(ours.get_train_dataloader())
    worst["personas_that_differ"] = 0
    values: dict[str, float] = {}
    for _ in range(2):
        inputs = ours._prepare_inputs(next(iterator))
        num_items = inputs["labels"].ne(-100).sum()
        [rollouts] = ours._roll_out([inputs])
        generated = [rollout.generated for rollout in rollouts]
        written = straightforward.generate_personas(straightforward.model, inputs)
        worst["personas_that_differ"] += sum(a != b for a, b in zip(generated, written, strict=True))

        with ours.compute_loss_context_manager():
            ours.model.eval()
            loss = ours.compute_loss(ours.model, {**inputs, ROLLOUT_KEY: rollouts}, num_items_in_batch=num_items)
            matches = straightforward.matcher.match(generated, inputs["persona"])
            theirs = straightforward.terms(straightforward.model.eval(), inputs, generated, matches)
        nll, completeness, consistency = theirs
        args = ours.args
        total = nll / num_items + args.completeness_weight * completeness + args.consistency_weight * consistency
        loss.backward()
        total.backward()
        terms = ours._eval_meter.read()
        for name, value in zip(TERMS, (nll / num_items, completeness, consistency), strict=True):
            worst[name] = max(worst[name], abs(terms[name] - value.item()) / max(abs(value.item()), 1.0))
            values[name] = max(values.get(name, 0.0), value.item())
        worst["gradient"] = max(worst["gradient"], gradient_difference(ours.model, straightforward.model))
    return worst, values


def gradient_difference(ours: torch.nn.Module, theirs: torch.nn.Module) -> float:
    """Norm of the difference of two models' gradients over the norm of the gradient; clears both."""
    others = dict(theirs.named_parameters())
    pairs = [(weight.grad, others[name].grad) for name, weight in ours.named_parameters()]
    difference = sum(float((a - b).double().square().sum()) for a, b in pairs if a is not None and b is not None)
    norm = sum(float(b.double().square().sum()) for _, b in pairs if b is not None)
    ours.zero_grad()
    theirs.zero_grad()
    return (difference / norm) ** 0.5


def prepare(trainer: Any) -> None:
    """What `Trainer.train` does before its loop."""
    trainer.create_optimizer_and_scheduler(num_training_steps=1)
    trainer.model_wrapped, trainer.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
    trainer.current_gradient_accumulation_steps = 1
    trainer.is_in_train, trainer.state.max_steps = True, 1


def run_block(trainer: Any, steps: int = BLOCK) -> Block:
    """Train over the first micro-batches as `Trainer`'s loop does."""
    matcher = trainer.matcher
    matcher.start_anew()
    trainer.rollout_seconds = 0.0
    iterator = iter(trainer.get_train_dataloader())
    start, cpu_start = time.perf_counter(), time.process_time()
    for _ in range(steps):
        [inputs], num_items = trainer.get_batch_samples(iterator, 1, trainer.args.device)
        trainer.training_step(trainer.model_wrapped, inputs, num_items)
        trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), 1.0)
        trainer.optimizer.step()
        trainer.model.zero_grad()
    if trainer.args.device.type == "cuda":
        torch.cuda.synchronize()
    wall = time.perf_counter() - start - matcher.seconds
    cpu = time.process_time() - cpu_start - matcher.cpu_seconds
    return Block(wall / steps, cpu / steps, matcher.seconds / steps, trainer.rollout_seconds / steps)


def measure(
    args: argparse.Namespace, plain: Any, straightforward: Any, ours: Any
) -> tuple[dict[str, list[Block]], dict[str, Counter[str]]]:
    """Let the ways take turns, in another order each round; per way its times and, for ours, what was in them."""
    ways = {"plain": plain, "straightforward": straightforward, **{f"rollout_{size}": ours for size in WINDOWS}}
    for trainer in (plain, straightforward, ours):
        prepare(trainer)
        run_block(trainer, steps=2)
    blocks: dict[str, list[Block]] = {name: [] for name in ways}
    counts: dict[str, Counter[str]] = {name: Counter() for name in ways}
    for number in range(args.rounds):
        names = list(ways)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if ways[name] is ours:
                ours.args.rollout_steps = int(name.removeprefix("rollout_"))
                ours.count.clear()
            blocks[name].append(run_block(ways[name]))
            if ways[name] is ours:
                counts[name].update({**ours.count, "encoder_calls": ours.matcher.encoder_calls})
        print(f"round {number + 1} of {args.rounds} done", file=sys.stderr)
    return blocks, counts


def main(argv: list[str] | None = None, encoder: Any = None) -> int:
    """Check, time, print; 1 if ours and the straightforward step differ. A test may bring its own encoder."""
    args = parse(argv)
    if args.plot:
        check_picture_path(args.plot)
    if args.threads:
        torch.set_num_threads(args.threads)
    load = os.getloadavg()[0]
    rows, tokenizer, data = load_rows(args, BLOCK * args.batch)
    folder = str(args.json.parent) if args.json else "runs"
    trainers = build_trainers(args, rows, tokenizer, folder, encoder)
    differences, values = check(*trainers[1:])
    limit = 1e-5 if args.dtype == "float32" else 5e-2
    if max(differences[name] for name in (*TERMS, "gradient")) > limit:
        print(f"error: ours and the straightforward step differ: {differences}", file=sys.stderr)
        return 1
    if min(values.values()) <= 0:
        print(f"error: expected all three terms above 0, found {values}; teach longer.", file=sys.stderr)
        return 1
    print(f"terms {values}; for the same rollouts ours differs from straightforward by {differences}")
    result = summarise(args, *measure(args, *trainers))
    settings = {name: value for name, value in vars(args).items() if name not in ("json", "plot")}
    result |= {
        "differences": differences,
        "terms": values,
        "settings": settings,
        "data": data,
        "device": machine(args),
    }
    result |= {"load_before": load, "torch": torch.__version__, "transformers": transformers.__version__}
    report(args, result)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    if args.plot:
        plot(args.plot, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
