"""What a training update of a configuration takes, measured on a few seconds of noise on the CPU.

Example, in the recipe's directory::

    python local/estimate.py conf/train_asr_conformer.yaml conf/train_asr_layerskip.yaml

Prints for each: parameters, CPU seconds of forward and backward pass for a second of audio (the
median over interleaved rounds), and megabytes that the forward pass keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from espnet_layerskip.files import run_main
from espnet_layerskip.training.task import LayerSkipASRTask

UTTERANCE_SECONDS = 12.0  # about the mean of train-clean-100
TOKENS_A_SECOND = 3.5


def build(config: Path, num_tokens: int) -> Any:
    """Return the model of a training configuration, with random weights, in training mode."""
    tokens = ["<blank>", "<unk>", *(f"t{i}" for i in range(num_tokens - 3)), "<sos/eos>"]
    words = ["--config", str(config), "--output_dir", "x", "--token_list", "x"]
    options = vars(LayerSkipASRTask.get_parser().parse_args(words))
    options |= {"token_list": tokens, "init_param": [], "specaug": None}
    return LayerSkipASRTask.build_model(argparse.Namespace(**options)).train()


def update(model: Any, utterances: int, seconds: float = UTTERANCE_SECONDS) -> tuple[float, float]:
    """Run one forward and backward pass.

    Returns:
        CPU seconds, and megabytes kept for the backward pass (float32, without parameters),
        both for a second of audio.
    """
    samples = int(seconds * 16000)
    speech = torch.randn(utterances, samples) * 0.1
    lens = torch.full((utterances,), samples)
    text = torch.randint(2, model.vocab_size - 1, (utterances, int(seconds * TOKENS_A_SECOND)))
    kept: dict[int, int] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    start = time.process_time()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = model(speech, lens, text, torch.full((utterances,), text.shape[1]))[0]
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    loss.backward()
    total = utterances * seconds
    model.zero_grad()
    return (time.process_time() - start) / total, sum(kept.values()) / 1e6 / total


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Cost of a training update, on the CPU")
    parser.add_argument("configs", nargs="+", type=Path)
    parser.add_argument("--nbpe", type=int, default=5000, help="Number of word pieces")
    parser.add_argument("--utterances", type=int, default=2, help="In a batch, 12 s each")
    parser.add_argument("--rounds", type=int, default=3, help="The first is a warm-up beside it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    models = {config: build(config, args.nbpe) for config in args.configs}
    runs: dict[Path, list[tuple[float, float]]] = {config: [] for config in models}
    for number in range(args.rounds + 1):
        for config, model in models.items():
            torch.manual_seed(number)
            runs[config].append(update(model, args.utterances))
    print("| configuration | parameters | CPU seconds | kept, MB |\n|---|---|---|---|")
    for config, found in runs.items():
        seconds, kept = (statistics.median(values) for values in zip(*found[1:], strict=True))
        parameters = sum(p.numel() for p in models[config].parameters())
        print(f"| {config.stem} | {parameters / 1e6:.1f} M | {seconds:.3f} | {kept:.1f} |")


if __name__ == "__main__":
    run_main(main)
