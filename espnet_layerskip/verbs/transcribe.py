"""The verb ``transcribe``: audio files to text lines."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from espnet_layerskip.files import write_text
from espnet_layerskip.inference.options import DECODER_TYPES
from espnet_layerskip.method.settings import PRECISIONS, SKIP_CONTEXTS
from espnet_layerskip.parallel import (
    Workers,
    add_worker_options,
    map_chunks,
    similar_chunks,
    workers_from,
)

if TYPE_CHECKING:
    from espnet_layerskip.inference.audio import Utterance

logger = logging.getLogger(__name__)

# Those that go to the model under their own names.
MODEL_OPTIONS = (
    "blank_threshold",
    "spike_extension",
    "skip_context",
    "precision",
    "beam_size",
    "device",
    "segment_size",
    "hop_size",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Print 'utt_id text' lines to stdout in input order; everything else goes to stderr. "
        "Audio of another rate is resampled, several channels are averaged. A file that cannot "
        "be used is named on stderr, the others are transcribed, and the exit status is 1."
    )
    add = parser.add_argument
    add(
        "--model",
        required=True,
        metavar="EXPDIR_ZIP_OR_TAG",
        help="experiment directory, packed zip, tag of espnet_model_zoo, or exported model",
    )
    add("--model-file", metavar="F", help="checkpoint; default: the best averaged one")
    add(
        "--blank-threshold",
        default="auto",
        metavar="auto|off|P",
        help="a frame skips layers where p(blank) > P, in (0, 1]; default: as calibrated, "
        "else as configured",
    )
    add("--spike-extension", metavar="L,R", help="frames kept around each non-blank frame")
    add("--skip-context", choices=SKIP_CONTEXTS, help="what kept frames see in upper layers")
    add(
        "--precision",
        choices=PRECISIONS,
        help="of the encoder; default: float32, of an exported model as it is",
    )
    add(
        "--decoder",
        choices=DECODER_TYPES,
        default="greedy",
        help="best path of the CTC head (greedy, the default), prefix beam search over it without "
        "or with an n-gram or lexicon (prefix_beam, ngram), or ESPnet's beam search (espnet)",
    )
    add("--beam-size", type=int, default=10, metavar="N", help="of a search (default: 10)")
    add("--ctc-weight", type=float, metavar="W", help="of --decoder espnet; default: ESPnet's")
    add("--ngram-file", metavar="F", help="ARPA file or KenLM binary, of ngram and espnet")
    add("--ngram-weight", type=float, metavar="W", help="of log10 p; default: ESPnet's, 0.9")
    add(
        "--lexicon",
        metavar="F",
        help="words to decode to, of --decoder ngram; then the n-gram is one over words",
    )
    add("--penalty", type=float, metavar="W", help="added for each token; with a lexicon, word")
    add(
        "--drop-threshold",
        metavar="P",
        help="frames with p(blank) > P are merged before a search, in (0.5, 1], or off; "
        "default: 0.99, and off with --decoder espnet",
    )
    add(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="utterances of similar length, or segments of long audio, encoded together",
    )
    add(
        "--segment-size",
        metavar="S",
        help="audio of more than twice S seconds is decoded in segments of S seconds, or off; "
        "default: 15. --decoder espnet takes audio as a whole, above 2 minutes only with off",
    )
    add(
        "--hop-size",
        type=float,
        metavar="S",
        help="seconds from the start of a segment to the start of the next (the rest overlaps); "
        "default: 1.2 less than the segment size",
    )
    add(
        "--num-threads",
        type=int,
        metavar="N",
        help="CPU threads; default: PyTorch's choice, and 1 in each of several processes",
    )
    add_worker_options(parser)
    add("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    add("--times", metavar="FILE.ctm", help="write the times of the words in seconds (CTM)")
    add("--stats", metavar="FILE.json", help="write times, RTF and skip ratio")
    add("--wav-scp", metavar="FILE", help="table of lines 'utt_id path'")
    add("audio", nargs="*", metavar="AUDIO", help="audio files; their stem is the utt_id")


def run(args: argparse.Namespace) -> int:
    """Transcribe as the arguments of ``add_options`` say.

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
    workers = workers_from(args)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    out = sys.stdout
    with contextlib.ExitStack() as stack:
        ctm = stack.enter_context(open(args.times, "w", encoding="utf-8")) if args.times else None
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))  # ESPnet and its imports print
        stats = _transcribe(args, utterances, workers, out, ctm)
    if args.stats:
        write_text(args.stats, json.dumps(stats, indent=2) + "\n")
    return 1 if stats["failed"] else 0


def list_utterances(audio: list[str], wav_scp: str | None) -> list[Utterance]:
    """Return the utterances of the command line.

    Raises:
        ValueError: If there is none, both kinds are given, or two have the same name.
    """
    from espnet_layerskip.inference.audio import Utterance, check_unique, read_wav_scp

    if bool(audio) == (wav_scp is not None):
        raise ValueError("either AUDIO files or --wav-scp FILE is needed, and not both")
    if wav_scp is not None:
        return read_wav_scp(wav_scp)
    utterances = [Utterance("_".join(Path(path).stem.split()), path) for path in audio]
    check_unique(utterances, "AUDIO")
    return utterances


def _transcribe(
    args: argparse.Namespace,
    utterances: list[Utterance],
    workers: Workers,
    out: TextIO,
    ctm: TextIO | None,
) -> dict[str, Any]:
    """Print one line an utterance to ``out``, its words to ``ctm``; return the statistics."""
    from espnet_layerskip.export.folder import is_export
    from espnet_layerskip.inference.skip_count import SkipCount
    from espnet_layerskip.inference.transcriber import Transcriber, header_seconds, lost

    names = ("ctc_weight", "ngram_file", "ngram_weight", "lexicon", "penalty", "drop_threshold")
    options = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    options |= {name: getattr(args, name) for name in MODEL_OPTIONS}
    options["decoder_type"] = args.decoder
    exported = is_export(args.model)
    if exported:
        options["num_threads"] = args.num_threads if workers.here else workers.threads
    elif args.precision is None:
        options["precision"] = "float32"
    transcriber = Transcriber(
        args.model,
        args.model_file,
        options,
        args.batch_size,
        bool(ctm),
        f"espnet_layerskip.{'export' if exported else 'inference'}.speech2text",
    )
    if workers.here:
        if args.num_threads is not None and not exported:
            import torch

            torch.set_num_threads(args.num_threads)
        transcriber.load()
        chunks: list[Any] = [utterances]
    else:
        seconds = [header_seconds(utt) for utt in utterances]
        chunks = similar_chunks(utterances, seconds, workers, transcriber.batches_of)
    started = time.perf_counter()
    audio_seconds = encoder_seconds = 0.0
    skips = SkipCount()
    failed = []
    for found in map_chunks(transcriber, chunks, workers, lost):
        audio_seconds += found.seconds
        encoder_seconds += found.encoder_seconds
        skips += found.skips
        if found.error is not None:
            logger.error("%s failed: %s", found.utt_id, found.error)
            failed.append(found.utt_id)
            continue
        print(f"{found.utt_id} {found.text}".rstrip(), file=out, flush=True)
        if ctm is not None:
            ctm.writelines(f"{line}\n" for line in found.ctm)
    elapsed = time.perf_counter() - started
    hint = {}
    if args.stats and workers.here and not exported:
        hint = skipping_hint(transcriber.load(), args.model)
    return {
        "audio_seconds": audio_seconds,
        "encoder_seconds": encoder_seconds,
        "total_seconds": elapsed,
        "rtf": elapsed / audio_seconds if audio_seconds > 0 else None,
        "skip_ratio": skips.ratio,
        "utterances": len(utterances) - len(failed),
        "failed": failed,
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
