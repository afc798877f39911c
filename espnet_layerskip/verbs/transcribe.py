"""The verb ``transcribe``: audio files to text lines."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from espnet_layerskip.inference.audio import AudioBlocks, Utterance, check_unique, read_wav_scp


def run(args: argparse.Namespace) -> int:
    """Transcribe as the arguments of ``cli.add_transcribe`` say.

    Returns:
        Exit status: 0, or 1 if an utterance failed.

    Raises:
        ValueError: If the call or the model cannot be used.
    """
    utterances = list_utterances(args.audio, args.wav_scp)
    for name in ("batch_size", "beam_size", "num_threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, but got {value}")
    for name in ("stats", "times"):
        path = getattr(args, name)
        if path and not Path(path).absolute().parent.is_dir():
            raise ValueError(f"--{name} {path}: there is no such directory to write it to")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    out = sys.stdout
    with contextlib.ExitStack() as stack:
        ctm = stack.enter_context(open(args.times, "w", encoding="utf-8")) if args.times else None
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))  # ESPnet and its imports print
        stats = _transcribe(args, utterances, out, ctm)
    if args.stats:
        write_json(Path(args.stats), stats)
    return 1 if stats["failed"] else 0


def list_utterances(audio: list[str], wav_scp: str | None) -> list[Utterance]:
    """Return the utterances of the command line.

    Raises:
        ValueError: If there is none, both kinds are given, or two have the same name.
    """
    if bool(audio) == (wav_scp is not None):
        raise ValueError("either AUDIO files or --wav-scp FILE is needed, and not both")
    if wav_scp is not None:
        return read_wav_scp(wav_scp)
    utterances = [Utterance("_".join(Path(path).stem.split()), path) for path in audio]
    check_unique(utterances, "AUDIO")
    return utterances


def _transcribe(
    args: argparse.Namespace, utterances: list[Utterance], out: TextIO, ctm: TextIO | None
) -> dict[str, Any]:
    """Print one line an utterance to ``out``, its words to ``ctm``; return the statistics."""
    import torch

    if args.num_threads is not None:
        torch.set_num_threads(args.num_threads)
    from espnet_layerskip.inference.recognize import recognize
    from espnet_layerskip.inference.speech2text import load_model
    from espnet_layerskip.inference.times import ctm_lines

    names = ("ctc_weight", "ngram_file", "ngram_weight", "lexicon", "penalty", "drop_threshold")
    options = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    speech2text = load_model(
        args.model,
        args.model_file,
        decoder_type=args.decoder,
        blank_threshold=args.blank_threshold,
        spike_extension=args.spike_extension,
        skip_context=args.skip_context,
        precision=args.precision,
        beam_size=args.beam_size,
        device=args.device,
        segment_size=args.segment_size,
        hop_size=args.hop_size,
        **options,
    )

    if ctm is not None and speech2text.frame_seconds is None:
        raise ValueError("--times: the model's frontend does not say how long a frame is")

    def open_audio(utt: Utterance) -> AudioBlocks:
        return AudioBlocks(utt, speech2text.sample_rate, resample=True, mix=True)

    started = time.perf_counter()
    seconds = 0.0
    frames = skipped = 0
    failed = []
    for result in recognize(speech2text, utterances, open_audio, args.batch_size):
        seconds += result.seconds
        frames += result.skips.num_frames
        skipped += result.skips.num_skipped
        if result.error is not None:
            failed.append(result.utt_id)
            continue
        print(f"{result.utt_id} {result.nbest[0][0] or ''}".rstrip(), file=out, flush=True)
        if ctm is not None:
            words = result.nbest[0][3].words
            ctm.writelines(f"{line}\n" for line in ctm_lines(result.utt_id, words))
    total = time.perf_counter() - started
    return {
        "audio_seconds": seconds,
        "encoder_seconds": speech2text.encoder_seconds,
        "total_seconds": total,
        "rtf": total / seconds if seconds > 0 else None,
        "skip_ratio": skipped / max(frames, 1),
        "utterances": len(utterances) - len(failed),
        "failed": failed,
    }


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    tmp = path.with_name(f".{path.name}.{os.getpid()}")
    tmp.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(tmp, path)
