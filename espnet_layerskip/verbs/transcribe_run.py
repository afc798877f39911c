"""What the verb ``transcribe`` does: everything is checked first, the model is loaded last."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from espnet_layerskip.export.folder import is_export
from espnet_layerskip.files import some, write_bytes, write_text
from espnet_layerskip.inference.audio import AudioError, Utterance, check_path
from espnet_layerskip.inference.pipes import hold_stdin
from espnet_layerskip.inference.quiet import log_ours
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.inference.times import ctm_lines
from espnet_layerskip.inference.transcriber import Transcriber, header_seconds, lost
from espnet_layerskip.parallel import Workers, map_chunks, similar_chunks, workers_from
from espnet_layerskip.verbs.progress import Progress
from espnet_layerskip.verbs.transcribe_inputs import (
    STDIN,
    check_model,
    check_options,
    list_utterances,
    option_files,
)
from espnet_layerskip.verbs.transcript_writers import (
    Write,
    check_folder,
    folder_writer,
    stream_writer,
    why_no_file,
)

logger = logging.getLogger(__name__)

# Those that go to the model under their own names.
MODEL_OPTIONS = (
    "blank_threshold",
    "spike_extension",
    "skip_context",
    "precision",
    "device",
    "segment_size",
    "hop_size",
    "confidence_temperature",
)


def transcribe(args: argparse.Namespace) -> int:
    """Check what was asked for, then do it; see `espnet_layerskip.verbs.transcribe.run`."""
    utterances = list_utterances(args.audio, args.wav_scp)
    check_options(args, utterances)
    workers = workers_from(args)
    check_model(args.model, args.model_file)
    log_ours()
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):  # a name that is not UTF-8 comes out as it went in
        out.reconfigure(encoding="utf-8", errors="surrogateescape")
    with contextlib.ExitStack() as stack:
        if STDIN in args.audio:
            held = stack.enter_context(hold_stdin())
            utterances = [
                replace(utt, path=held.name) if utt.path == STDIN else utt for utt in utterances
            ]
        ctm: list[str] | None = [] if args.times else None
        stats = _transcribe(args, utterances, workers, _writer(args, utterances, out), ctm)
    if ctm is not None:
        write_bytes(args.times, "".join(ctm).encode("utf-8", "surrogateescape"))
    if args.stats:
        write_text(args.stats, json.dumps(stats, indent=2) + "\n")
    return 1 if stats["failed"] else 0


def _writer(args: argparse.Namespace, utterances: Sequence[Utterance], out: TextIO) -> Write:
    """Return where transcripts are written to."""
    if args.output_dir is None:
        return stream_writer(out, args.format)
    folder = Path(args.output_dir)
    others = [*option_files(args), args.stats, args.times]
    check_folder("--output-dir", folder, utterances, args.format, filter(None, others))
    return folder_writer(folder, args.format, out)


def _transcriber(args: argparse.Namespace, workers: Workers) -> Transcriber:
    """Return what transcribes; the model is not loaded yet."""
    names = ("ctc_weight", "ngram_file", "ngram_weight", "lexicon", "penalty", "drop_threshold")
    options = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    options |= {name: getattr(args, name) for name in MODEL_OPTIONS}
    options["beam_size"] = args.beam_size or 10
    options["decoder_type"] = args.decoder
    exported = is_export(args.model)
    if exported:
        options["num_threads"] = args.num_threads if workers.here else workers.threads
    elif args.precision is None:
        options["precision"] = "float32"
    return Transcriber(
        args.model,
        args.model_file,
        options,
        args.batch_size,
        bool(args.times) or args.format != "text",
        f"espnet_layerskip.{'export' if exported else 'inference'}.speech2text",
        args.allow_pipes,
    )


def _missing(args: argparse.Namespace, utterances: Sequence[Utterance]) -> dict[str, str]:
    """Return what is wrong with those of which no file can be read, or written, by name."""
    found = {}
    for utt in utterances:
        try:
            check_path(utt, args.allow_pipes)
        except AudioError as e:
            found[utt.utt_id] = str(e)
        folder = args.output_dir
        if folder and (why := why_no_file(Path(folder), utt.utt_id, args.format)):
            found.setdefault(utt.utt_id, why)
    return found


def _transcribe(
    args: argparse.Namespace,
    utterances: list[Utterance],
    workers: Workers,
    write: Write,
    ctm: list[str] | None,
) -> dict[str, Any]:
    """Write the transcripts, and their words to ``ctm``; return the statistics."""
    errors = _missing(args, utterances)
    for name, message in errors.items():
        logger.error("%s failed: %s", name, message)
    there = [utt for utt in utterances if utt.utt_id not in errors]
    transcriber = _transcriber(args, workers)
    if not there:
        chunks: list[Any] = []
    elif workers.here:
        if args.num_threads is not None and not is_export(args.model):
            import torch

            torch.set_num_threads(args.num_threads)
        transcriber.load()
        chunks = [there]
    else:
        seconds = [header_seconds(utt) for utt in there]
        chunks = similar_chunks(there, seconds, workers, transcriber.batches_of)
    started = time.perf_counter()
    audio_seconds = encoder_seconds = 0.0
    skips = SkipCount()
    with Progress(there, workers.here) as progress:
        transcriber.heard = progress.heard
        for found in map_chunks(transcriber, chunks, workers, lost) if chunks else ():
            audio_seconds += found.seconds
            encoder_seconds += found.encoder_seconds
            skips += found.skips
            with progress.step():
                if found.error is not None:
                    logger.error("%s failed: %s", found.utt_id, found.error)
                    errors[found.utt_id] = found.error
                    continue
                write(found)
            if ctm is not None:
                ctm += [f"{line}\n" for line in ctm_lines(found.utt_id, found.words)]
    elapsed = time.perf_counter() - started
    failed = [utt.utt_id for utt in utterances if utt.utt_id in errors]
    done = len(utterances) - len(failed)
    if failed:
        counts = f"read {len(utterances)} = transcribed {done} + refused {len(failed)}"
        logger.error("%s: %s", counts, some(failed))
    hint = {}
    if args.stats and there and workers.here and not is_export(args.model):
        hint = skipping_hint(transcriber.load(), args.model)
    return {
        "audio_seconds": audio_seconds,
        "encoder_seconds": encoder_seconds,
        "total_seconds": elapsed,
        "rtf": elapsed / audio_seconds if audio_seconds > 0 else None,
        "skip_ratio": skips.ratio,
        "read": len(utterances),
        "utterances": done,
        "failed": failed,
        "errors": {name: errors[name] for name in failed},
        **hint,
    }


def skipping_hint(speech2text: Any, model: str) -> dict[str, str]:
    """Return a line of the statistics about a model that could skip and has no gates; else {}."""
    from espnet_layerskip.evaluation.open_model import trained_layers
    from espnet_layerskip.method.settings import can_skip

    layers = trained_layers(speech2text.asr_model)
    if not layers or can_skip(speech2text.asr_model.encoder):
        return {}
    return {
        "hint": f"nothing skips, but the model has intermediate CTC heads after layers "
        f"{', '.join(map(str, layers))}: espnet-layerskip try --model {model} --data DIR says "
        "what gates there would give"
    }
