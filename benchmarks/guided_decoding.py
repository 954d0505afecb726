"""Both streams of guided decoding in one decoder batch, against two passes one after the other.

Both ways run the same generation loop with a cache for each stream; only the decoder calls differ: one batch of both
streams whose last states are combined before the language-model head, or two calls of the whole model whose logits
are combined. The replies are compared first, then the two ways are timed in turn, and the ratio is that of the medians
of this one run:

    python benchmarks/guided_decoding.py --json runs/guided_decoding.json

The default model has BlenderbotSmall's shape (8 + 8 layers of width 512, 54,952 tokens) and random weights: time does
not depend on their values. Encoding is left out of the times, for it is the same both ways.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from pess_hf.configuration_generator import PessGeneratorConfig
from pess_hf.guided_decoding import PersonaEncoderOutput
from pess_hf.modeling_generator import PessGenerator

PAD, START = 0, 1
STRATEGY_IDS = list(range(4, 12))


class TwinCache(EncoderDecoderCache):
    """The cache of the stream with the persona, carrying the other stream's along."""

    def __init__(self) -> None:
        super().__init__(DynamicCache(), DynamicCache())
        self.twin = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def reorder_cache(self, beam_idx: Any) -> None:
        """Reorder both streams."""
        super().reorder_cache(beam_idx)
        self.twin.reorder_cache(beam_idx)


class TwoPasses(PessGenerator):
    """The same model, but the streams go through the decoder one after the other."""

    def _decode(
        self,
        encoded: PersonaEncoderOutput,
        attention_mask: Tensor | None,
        decoder_inputs: dict[str, Tensor | None],
        strengths: Tensor | None,
        kwargs: dict[str, Any],
    ) -> Any:
        first = kwargs.pop("past_key_values")
        assert encoded.streams is not None and strengths is not None
        logits = []
        for stream, cache in enumerate((first, first.twin)):
            outputs = self.backbone(
                encoder_outputs=BaseModelOutput(last_hidden_state=encoded.streams[:, stream]),  # (B, L, D)
                attention_mask=attention_mask,
                past_key_values=cache,
                return_dict=True,
                **decoder_inputs,
                **kwargs,
            )
            logits.append(outputs.logits)  # (B, T, V)
        a = strengths[..., None]  # (B, T, 1)
        return Seq2SeqLMOutput(logits=(1 + a) * logits[0] - a * logits[1], past_key_values=first)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=["blenderbot-small", "bart"], default="blenderbot-small")
    parser.add_argument("--d-model", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8, help="layers of the encoder, and of the decoder")
    parser.add_argument("--vocab-size", type=int, default=54952)
    parser.add_argument("--batch", type=int, default=4, help="conversations answered at once")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--context", type=int, default=128, help="tokens of context")
    parser.add_argument("--persona", type=int, default=32, help="tokens of persona")
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves torch's choice")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    return parser.parse_args()


def build(args: argparse.Namespace) -> tuple[PessGenerator, TwoPasses]:
    """One set of weights, two ways to decode with it."""
    torch.manual_seed(0)
    backbone = AutoConfig.for_model(
        args.backbone,
        vocab_size=args.vocab_size,
        d_model=args.d_model,
        encoder_layers=args.layers,
        decoder_layers=args.layers,
        encoder_ffn_dim=4 * args.d_model,
        decoder_ffn_dim=4 * args.d_model,
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=2,
        decoder_start_token_id=START,
        forced_eos_token_id=None,
    )
    together = PessGenerator(PessGeneratorConfig(backbone=backbone, strategy_token_ids=STRATEGY_IDS))
    apart = TwoPasses.from_backbone(together.backbone, strategy_token_ids=STRATEGY_IDS)
    apart.fusion = together.fusion
    return together.to(args.device).eval(), apart.to(args.device).eval()


def seconds(work: Callable[[], Tensor], device: str) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> int:
    """Compare, time, print; 1 if the replies differ."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    load = os.getloadavg()[0]
    together, apart = build(args)
    context = torch.randint(12, args.vocab_size, (args.batch, args.context), device=args.device)
    persona = torch.randint(12, args.vocab_size, (args.batch, args.persona), device=args.device)
    settings: dict[str, Any] = {
        "attention_mask": torch.ones_like(context),
        "strategy": "Providing Suggestions",
        "num_beams": args.beams,
        "max_new_tokens": args.new_tokens,
        "min_new_tokens": args.new_tokens,
    }
    with torch.no_grad():
        encoded = together.encode(context, settings["attention_mask"], persona, two_streams=True)

    def one_batch() -> Tensor:
        return together.generate(encoder_outputs=encoded, **settings)

    def two_passes() -> Tensor:
        return apart.generate(encoder_outputs=encoded, past_key_values=TwinCache(), **settings)

    # The first calls check the replies and warm up.
    if not torch.equal(one_batch(), two_passes()):
        print("error: the two ways gave different replies", file=sys.stderr)
        return 1
    times: dict[str, list[float]] = {"one_batch": [], "two_passes": []}
    for _ in range(args.repeats):
        times["one_batch"].append(seconds(one_batch, args.device))
        times["two_passes"].append(seconds(two_passes, args.device))
    report(args, times, load)
    return 0


def report(args: argparse.Namespace, times: dict[str, list[float]], load: float) -> None:
    """Print the medians and their ratio, and write them where asked."""
    medians = {name: median(values) for name, values in times.items()}
    ratio = medians["two_passes"] / medians["one_batch"]
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"{torch.get_num_threads()} threads"
    print(f"{args.backbone}, batch {args.batch}, {args.beams} beam(s), {args.new_tokens} tokens, {device}")
    print(f"load before the run {load:.2f}; replies equal")
    for name, value in medians.items():
        print(f"{name:<10}  {1000 * value / args.new_tokens:8.1f} ms a token (median of {args.repeats})")
    print(f"two passes / one batch = {ratio:.2f}")
    if args.json is None:
        return
    settings = {name: value for name, value in vars(args).items() if name != "json"}
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    result = {"ratio": ratio, "median_seconds": medians, "seconds": times, "replies_equal": True}
    machine = {"device": device, "load_before": load, **versions}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({**result, "settings": settings, **machine}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
