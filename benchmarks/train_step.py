"""What a PESS step costs, in plain likelihood steps: straightforward, and ours by `rollout_steps`.

    python benchmarks/train_step.py --json runs/train_step.json --plot runs/train_step.png

Six ways to train take turns in one process over the same micro-batches of real dialogues (folder PESS_DATA, by default
`../shared/data`) or, where that is absent, of the embedded corpus: plain (stock `Seq2SeqTrainer` and BART),
straightforward (`straightforward_step.py`), and `PessTrainer` with rollouts for 1, 4, 8 and 16 micro-batches at once.
A block is 16 micro-batches, a whole number of windows of each, through the data loader, `get_batch_samples`,
`training_step`, clipping and AdamW. The figures are medians over rounds of a block's time per step.

The learning rate is 0: the model, and so what it writes, stays the same for all. An untrained model would write to the
last token and match nothing, which leaves two of the three sequences out; so the small model is taught the
benchmark's own dialogues first (`--teach_steps`). Where that would take too long (large shapes), `--rollouts scripted`
puts half of the reference and another dialogue's sentences in place of what the model wrote; it still generates. How
many rows and tokens there were is printed and written. The sentence cache starts empty in every block.

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
from statistics import median
from typing import Any

import torch
import transformers
from straightforward_step import InOrder, Personas, PlainTrainer, StraightforwardTrainer
from tokenizers.processors import TemplateProcessing
from transformers import BartConfig, BartForConditionalGeneration

from pess_hf.data import load_persona_dataset
from pess_hf.data.collator import PersonaCollator
from pess_hf.decoder_batch import DecoderBatch, Rollout
from pess_hf.modeling_extractor import PessExtractor
from pess_hf.plots import check_picture_path
from pess_hf.rollout_window import ROLLOUT_KEY, TokenIds
from pess_hf.similarity import PersonaMatch, PersonaMatcher
from pess_hf.small_tokenizer import train_tokenizer
from pess_hf.text_metrics import require_extra
from pess_hf.trainer import PessTrainer
from pess_hf.training_args import PessTrainingArguments

WINDOWS = (1, 4, 8, 16)
BLOCK = 16  # micro-batches: a whole number of each window
DATA = Path(__file__).resolve().parent.parent / os.environ.get("PESS_DATA", "../shared/data")
FILES = [*(f"msc/session_{session}_valid.jsonl" for session in (2, 3, 4)), "personachat/train_sample.jsonl"]
TERMS = ("nll", "completeness", "consistency")


class TimedMatcher(PersonaMatcher):
    """Counts the seconds spent in matching."""

    seconds = 0.0

    def match(self, *args: Any) -> list[PersonaMatch]:
        """As `PersonaMatcher.match`."""
        start = time.perf_counter()
        matches = super().match(*args)
        self.seconds += time.perf_counter() - start
        return matches


class OursTrainer(InOrder, PessTrainer):
    """`PessTrainer`, counting what its steps are made of."""

    script: Any = None
    references: Personas
    count: Counter[str]

    def _roll_out(self, batches: list[dict[str, Any]], token_ids: TokenIds | None = None) -> list[list[Rollout]]:
        self.references = [persona for batch in batches for persona in batch["persona"]]
        start = time.perf_counter()
        rollouts = super()._roll_out(batches, token_ids)
        self.count["rollout_seconds"] += time.perf_counter() - start  # type: ignore[assignment]
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
    parser.add_argument("--teach_steps", type=int, default=250, help="likelihood steps before anything is measured")
    parser.add_argument("--rollouts", choices=["model", "scripted"], default="model")
    parser.add_argument("--data", choices=["auto", "sample"], default="auto")
    parser.add_argument("--similarity_model", default=PessTrainingArguments.similarity_model)
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves torch's choice")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16 is autocast")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--plot", type=Path, help="draw cost against rollout_steps here (extra metrics)")
    return parser.parse_args(argv)


def load_rows(args: argparse.Namespace) -> tuple[list[dict[str, Any]], Any, str]:
    """The dialogues nearest to the wanted lengths, no reference cut, and a tokenizer trained on the texts."""
    use_files = args.data == "auto" and DATA.is_dir()
    rows = list(load_persona_dataset([DATA / name for name in FILES] if use_files else "sample", split="train"))
    rows = [row for row in rows if row["persona"]]
    texts = [text for row in rows for text in (*row["utterances"], *row["persona"])]
    tokenizer = train_tokenizer(texts, args.vocab_size)
    start, end = tokenizer.bos_token, tokenizer.eos_token
    ids = [(start, tokenizer.bos_token_id), (end, tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(f"{start} $A {end}", special_tokens=ids)
    source = [len(ids) for ids in tokenizer([" | ".join(row["utterances"]) for row in rows])["input_ids"]]
    target = [len(ids) for ids in tokenizer([" | ".join(row["persona"]) for row in rows])["input_ids"]]

    def distance(row: int) -> int:
        too_long = 10_000 * (target[row] > args.target_tokens)
        return too_long + abs(args.target_tokens - target[row]) + max(0, args.source_tokens - source[row])

    nearest = sorted(range(len(rows)), key=lambda row: (distance(row), row))[: BLOCK * args.batch]
    # In the order of the files, so that lengths are mixed.
    return [rows[row] for row in sorted(nearest)], tokenizer, "real dialogues" if use_files else "embedded corpus"


def build_model(args: argparse.Namespace, tokenizer: Any) -> BartForConditionalGeneration:
    """A BART of the wanted shape with random weights."""
    torch.manual_seed(0)
    heads = max(args.d_model // 64, 1)
    config = BartConfig(
        vocab_size=max(args.vocab_size, len(tokenizer)),
        d_model=args.d_model,
        encoder_layers=args.layers,
        decoder_layers=args.layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * args.d_model,
        decoder_ffn_dim=4 * args.d_model,
        max_position_embeddings=max(args.source_tokens, args.target_tokens) + 2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=None,
    )
    return BartForConditionalGeneration(config)


def scripted(rows: list[dict[str, Any]]) -> Any:
    """Half of each reference, and as many sentences of the next dialogue, so that all three sequences are there."""
    written = {}
    for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
        half = (len(row["persona"]) + 1) // 2
        written[tuple(row["persona"])] = [*row["persona"][:half], *other["persona"][:half]]
    return lambda references: [written[tuple(persona)] for persona in references]


def build_trainers(args: argparse.Namespace, rows: list[dict[str, Any]], tokenizer: Any, folder: str) -> Any:
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
    teach(plain, args.teach_steps)
    straightforward = StraightforwardTrainer(copy.deepcopy(plain.model), **common)
    straightforward.matcher = PersonaMatcher(args.similarity_model, args.threshold, cache_size=0)
    model = PessExtractor(copy.deepcopy(plain.model.config))
    model.load_state_dict(plain.model.state_dict())
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


def check(straightforward: Any, ours: Any) -> dict[str, float]:
    """How far ours is from the straightforward step for the same rollouts, without dropout, over two micro-batches."""
    worst = dict.fromkeys((*TERMS, "gradient"), 0.0)
    iterator = iter(ours.get_train_dataloader())
    worst["personas_that_differ"] = 0
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
        worst["gradient"] = max(worst["gradient"], gradient_difference(ours.model, straightforward.model))
    return worst


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


def run_block(trainer: Any, steps: int = BLOCK) -> tuple[float, float]:
    """Train over the first micro-batches as `Trainer`'s loop does; wall-clock and CPU seconds per step."""
    if isinstance(trainer, OursTrainer):
        trainer.matcher._cache.clear()
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
    return (time.perf_counter() - start) / steps, (time.process_time() - cpu_start) / steps


def measure(args: argparse.Namespace, plain: Any, straightforward: Any, ours: Any) -> dict[str, Any]:
    """Let the ways take turns, in another order each round; per way its times and, for ours, what they went to."""
    ways = {"plain": plain, "straightforward": straightforward, **{f"rollout_{size}": ours for size in WINDOWS}}
    for trainer in (plain, straightforward, ours):
        prepare(trainer)
        run_block(trainer, steps=2)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    parts: dict[str, Counter[str]] = {f"rollout_{size}": Counter() for size in WINDOWS}
    for number in range(args.rounds):
        names = list(ways)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if name in parts:
                ours.args.rollout_steps = int(name.split("_")[1])
                ours.count.clear()
                ours.matcher.seconds, ours.matcher.encoder_calls = 0.0, 0
            seconds[name].append(run_block(ways[name]))
            if name in parts:
                counts = {"match_seconds": ours.matcher.seconds, "encoder_calls": ours.matcher.encoder_calls}
                parts[name].update({**ours.count, **counts})  # type: ignore[arg-type]
        print(f"round {number + 1} of {args.rounds} done", file=sys.stderr)
    return {"seconds": seconds, "parts": parts}


def floor(args: argparse.Namespace, tokens: tuple[float, float]) -> float:
    """Fewest floating-point operations of a PESS step over those of a plain one, as multiples of width squared.

    One encoder pass, three decoder sequences and their gradients (twice the forward), and one greedy decoding.

    Args:
        args: The model's shape.
        tokens: Source and target tokens of a dialogue.
    """
    source, target = tokens
    encoder = args.layers * source * (12 + 2 * source / args.d_model)
    decoder = args.layers * (target * (14 + 2 * (source + target) / args.d_model) + 2 * source)
    decoder += target * args.vocab_size / args.d_model
    return (3 * encoder + 9 * decoder + decoder) / (3 * encoder + 3 * decoder)


def summarise(args: argparse.Namespace, measured: dict[str, Any]) -> dict[str, Any]:
    """Medians, ratios, and the composition of the steps."""
    seconds = {name: median(wall for wall, _ in times) for name, times in measured["seconds"].items()}
    cpu_seconds = {name: median(cpu for _, cpu in times) for name, times in measured["seconds"].items()}
    parts = {}
    for name, count in measured["parts"].items():
        steps = count["steps"]
        total = sum(wall for wall, _ in measured["seconds"][name]) / args.rounds  # a mean, like the parts
        parts[name] = {
            "rollout_share": (count["rollout_seconds"] - count["match_seconds"]) / steps / total,
            "matching_share": count["match_seconds"] / steps / total,
            "matching_seconds": count["match_seconds"] / steps,
            "encoder_calls": count["encoder_calls"] / steps,
        }
    last = measured["parts"][f"rollout_{WINDOWS[-1]}"]
    dialogues = last["reference"]
    return {
        "seconds": seconds,
        "ratio_to_plain": {name: value / seconds["plain"] for name, value in seconds.items()},
        "cpu_seconds": cpu_seconds,
        "cpu_ratio_to_plain": {name: value / cpu_seconds["plain"] for name, value in cpu_seconds.items()},
        "faster_than_straightforward": {name: seconds["straightforward"] / seconds[name] for name in measured["parts"]},
        "floor": floor(args, (last["source_tokens"] / dialogues, last["target_tokens"] / dialogues)),
        "parts": parts,
        "per_dialogue": {
            "source_tokens": last["source_tokens"] / dialogues,
            "target_tokens": last["target_tokens"] / dialogues,
            "new_target_rows": last["new_target"] / dialogues,
            "generated_rows": last["generated"] / dialogues,
            "generated_tokens": last["rollout_tokens"] / last["rollouts"],
        },
        "all_seconds": {name: [wall for wall, _ in times] for name, times in measured["seconds"].items()},
    }


def report(args: argparse.Namespace, result: dict[str, Any]) -> None:
    """Print the table."""
    mean = result["per_dialogue"]
    print(f"{args.layers}+{args.layers} layers, {args.d_model} wide, batch {args.batch}, {result['data']}")
    print(
        f"mean tokens: source {mean['source_tokens']:.0f}, target {mean['target_tokens']:.0f}, generated "
        f"{mean['generated_tokens']:.0f}; decoder rows a dialogue: 1 reference, {mean['new_target_rows']:.2f} new "
        f"target, {mean['generated_rows']:.2f} generated"
    )
    print(f"{result['device']}; load before the run {result['load_before']:.2f}; floor {result['floor']:.2f}")
    print(f"\n{'':<16}{'ms a step':>10}{'plain steps':>13}{'CPU time':>10}{'rollout':>9}{'matching':>10}")
    for name, value in result["seconds"].items():
        line = f"{name:<16}{1000 * value:10.1f}{result['ratio_to_plain'][name]:13.2f}"
        line += f"{result['cpu_ratio_to_plain'][name]:10.2f}"
        if name in result["parts"]:
            part = result["parts"][name]
            line += f"{100 * part['rollout_share']:8.1f}%{100 * part['matching_share']:9.1f}%"
        print(line)
    print(f"\nstraightforward / ours at 8 = {result['faster_than_straightforward']['rollout_8']:.2f}")


def plot(path: Path, result: dict[str, Any]) -> None:
    """Draw cost against `rollout_steps`."""
    require_extra("matplotlib").use("Agg")
    plt: Any = require_extra("matplotlib.pyplot")
    ratio = result["ratio_to_plain"]
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axes.plot(WINDOWS, [ratio[f"rollout_{size}"] for size in WINDOWS], marker="o", label="PessTrainer")
    axes.axhline(ratio["straightforward"], color="tab:red", ls="--", label="straightforward")
    axes.axhline(result["floor"], color="tab:green", ls=":", label="floor (operations)")
    axes.axhline(1, color="grey", lw=1, label="plain likelihood")
    axes.set_xticks(WINDOWS)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("rollout_steps")
    axes.set_ylabel("cost of a step, in plain steps")
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def machine(args: argparse.Namespace) -> str:
    """The processor or the accelerator."""
    if args.device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else 'CPU'}, {torch.get_num_threads()} threads"


def main(argv: list[str] | None = None) -> int:
    """Check, time, print; 1 if ours and the straightforward step differ."""
    args = parse(argv)
    if args.plot:
        check_picture_path(args.plot)
    if args.threads:
        torch.set_num_threads(args.threads)
    load = os.getloadavg()[0]
    rows, tokenizer, data = load_rows(args)
    trainers = build_trainers(args, rows, tokenizer, str((args.json or Path("runs/x")).parent))
    differences = check(*trainers[1:])
    limit = 1e-5 if args.dtype == "float32" else 5e-2
    if max(differences[name] for name in (*TERMS, "gradient")) > limit:
        print(f"error: ours and the straightforward step differ: {differences}", file=sys.stderr)
        return 1
    print(f"for the same rollouts, terms and gradients equal: {differences}")
    result = summarise(args, measure(args, *trainers))
    settings = {name: value for name, value in vars(args).items() if name not in ("json", "plot")}
    result |= {"differences": differences, "settings": settings, "data": data, "device": machine(args)}
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
