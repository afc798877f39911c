#!/usr/bin/env python3
"""ASR decoding with ESPnet's arguments, plus those of layer skipping.

Stands in for ``espnet2.bin.asr_inference``::

    python -m espnet_layerskip.bin.asr_inference --decoder greedy --blank_threshold 0.95 \\
        --data_path_and_name_and_type dump/raw/test/wav.scp,speech,sound \\
        --asr_train_config exp/asr/config.yaml --asr_model_file exp/asr/valid.loss.ave.pth \\
        --output_dir exp/asr/decode/test

Writes ESPnet's ``{n}best_recog/`` tables and ``skip_stats`` (utt_id, encoder frames, frames
that skipped layers). An utterance that cannot be decoded is logged and listed in
``failed``; the others are written all the same, and the exit status is 1. It is 2 if nothing could
be decoded at all, or the results could not be written.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

import yaml

from espnet_layerskip._late_imports import start_sooner
from espnet_layerskip.files import LOG_FORMAT, MISTAKES, each_row, what_is_wrong
from espnet_layerskip.inference.audio import AudioBlocks, Utterance, read_wav_scp
from espnet_layerskip.inference.options import DECODER_TYPES
from espnet_layerskip.inference.recognize import recognize
from espnet_layerskip.inference.result_dir import ResultDir
from espnet_layerskip.method.settings import PRECISIONS, SKIP_CONTEXTS

# Arguments of the command that are not arguments of Speech2Text.
_COMMAND_ONLY = (
    "config",
    "output_dir",
    "ngpu",
    "seed",
    "num_workers",
    "log_level",
    "data_path_and_name_and_type",
    "key_file",
    "allow_variable_data_keys",
    "word_lm_train_config",
    "word_lm_file",
    "model_tag",
    "batch_size",
)

logger = logging.getLogger(__name__)


def get_parser() -> argparse.ArgumentParser:
    """Return ESPnet's decoding parser with the options of layer skipping."""
    from espnet_layerskip._compat import inference_module

    parser: argparse.ArgumentParser = inference_module().get_parser()
    for action in parser._actions:
        if action.help:  # ESPnet 202611 has a bare % in a help text, which argparse rejects
            action.help = re.sub(r"%%|%(?!\()", "%%", action.help)
        if action.dest == "ctc_window_margin":
            action.default = 0
            action.help = (
                "Half-width, in encoder frames, of the window that the CTC prefix scores are "
                "restricted to: an approximation. 0 is exact. (ESPnet's default is 100.)"
            )
        if action.dest == "batch_size":
            action.help = (
                "Utterances of similar length, or segments of long audio, encoded together; not "
                "with --decoder_type espnet"
            )
    if not any(action.dest == "ctc_window_margin" for action in parser._actions):
        parser.add_argument(
            "--ctc_window_margin",
            type=int,
            default=0,
            help="Only 0 (exact) in this ESPnet version",
        )
    group = parser.add_argument_group("Layer skipping related")
    group.add_argument(
        "--decoder_type",
        "--decoder",
        choices=DECODER_TYPES,
        default="espnet",
        help="ESPnet's beam search, or of the CTC head alone: its best path (greedy), prefix beam "
        "search (prefix_beam), prefix beam search with --ngram_file, --lexicon or both (ngram)",
    )
    group.add_argument(
        "--lexicon",
        help="Words to decode to, of --decoder_type ngram: lines 'WORD TOKEN ...', or only 'WORD' "
        "for the tokenizer's spelling. The n-gram is then one over words",
    )
    group.add_argument(
        "--drop_threshold",
        help="Frames with p(blank) above it are merged before a search, in (0.5, 1], or 'off'; "
        "default: 0.99, and off with --decoder_type espnet",
    )
    group.add_argument(
        "--blank_threshold",
        default="auto",
        help="A frame skips layers where p(blank) is above this, in (0, 1]; 'off'; or 'auto', as "
        "calibrated (espnet-layerskip calibrate), else as the model was configured",
    )
    group.add_argument(
        "--spike_extension",
        metavar="L,R",
        help="Frames left and right of each non-blank frame that do not skip; default: as the "
        "model was configured",
    )
    group.add_argument(
        "--skip_context",
        choices=SKIP_CONTEXTS,
        help="What kept frames see in the upper layers; default: as the model was configured",
    )
    group.add_argument(
        "--exit_layer",
        metavar="K",
        help="Stop every frame after gate layer K (static early exit), or 'none'",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="Of the encoder; int8 is for matrix products, on a CPU",
    )
    group.add_argument(
        "--segment_size",
        help="Audio of more than twice as many seconds is decoded in segments of this length, or "
        "'off'; default: 15. --decoder_type espnet takes audio as a whole, and more than 2 minutes "
        "only with 'off'",
    )
    group.add_argument(
        "--hop_size",
        type=float,
        help="Seconds from the start of a segment to the start of the next (the rest overlaps); "
        "default: 1.2 less than segment_size",
    )
    return parser


def read_utterances(
    data_path_and_name_and_type: Sequence[tuple[str, str, str]], key_file: str | None
) -> list[Utterance]:
    """Return the utterances to decode.

    Args:
        data_path_and_name_and_type: One triple (wav.scp, "speech", "sound").
        key_file: Table whose first column selects and orders them, or None for all.

    Raises:
        ValueError: For any other input.
    """
    triples = [tuple(triple) for triple in data_path_and_name_and_type]
    if len(triples) != 1 or triples[0][1:] != ("speech", "sound"):
        raise ValueError(
            "data_path_and_name_and_type must be one triple 'wav.scp,speech,sound', but got "
            + " ".join(",".join(triple) for triple in triples)
        )
    utterances = read_wav_scp(triples[0][0])
    if key_file is None:
        return utterances
    known = {utt.utt_id: utt for utt in utterances}
    # unknown ones, and lines that are wrong, fail by name; an id that comes again is one
    rows = [row for row in each_row(key_file, allow_empty_value=True) if not row.again]
    if not any(row.key for row in rows):
        raise ValueError(f"key_file {key_file} names no utterance")
    return [
        known.get(row.key, Utterance(row.key or f"key_file:{row.number}", "", row.problem))
        for row in rows
    ]


def inference(args: argparse.Namespace) -> int:
    """Decode as the arguments say.

    Returns:
        Exit status: 0, or 1 if an utterance failed.

    Raises:
        ValueError: If the arguments, the model or the input table cannot be used.
        OSError: If the results cannot be written.
    """
    from espnet_layerskip._compat import inference_module
    from espnet_layerskip.inference.speech2text import Speech2Text

    if args.word_lm_train_config is not None:
        raise ValueError("word_lm_train_config is not supported, as in ESPnet")
    if args.ngpu > 1:
        raise ValueError(f"ngpu must be 0 or 1 in decoding, but got {args.ngpu}")
    utterances = read_utterances(args.data_path_and_name_and_type, args.key_file)
    inference_module().set_all_random_seed(args.seed)
    kwargs: dict[str, Any] = {k: v for k, v in vars(args).items() if k not in _COMMAND_ONLY}
    kwargs["device"] = "cuda" if args.ngpu == 1 else "cpu"
    speech2text = Speech2Text.from_pretrained(args.model_tag, **kwargs)

    def open_audio(utt: Utterance) -> AudioBlocks:
        return AudioBlocks(utt, speech2text.sample_rate)

    started = time.perf_counter()
    done = failed = frames = skipped = 0
    seconds = 0.0
    with ResultDir(args.output_dir, args.nbest) as results:
        for result in recognize(speech2text, utterances, open_audio, args.batch_size):
            results.write(result)
            done += 1
            if result.error is not None:
                failed += 1
                logger.error("%s failed: %s", result.utt_id, result.error)
            seconds += result.seconds
            frames += result.skips.num_frames
            skipped += result.skips.num_skipped
            if result.nbest:
                logger.info("%d/%d %s %s", done, len(utterances), result.utt_id, result.nbest[0][0])
    elapsed = time.perf_counter() - started
    if done > failed:
        logger.info(
            "%d utterances, %.1f s of audio: RTF %.4f (encoder %.4f), %.1f %% of %d frames skipped",
            done - failed,
            seconds,
            elapsed / max(seconds, 1e-9),
            speech2text.encoder_seconds / max(seconds, 1e-9),
            100.0 * skipped / max(frames, 1),
            frames,
        )
    logger.info("%d read = %d decoded + %d refused", len(utterances), done - failed, failed)
    if failed:
        logger.error("%d of %d failed, see %s/failed", failed, done, args.output_dir)
    return 1 if failed else 0


def main(cmd: Sequence[str] | None = None) -> int:
    """Decode; returns the exit status.

    Args:
        cmd: Arguments instead of those of the command line.
    """
    print(" ".join([sys.executable, *sys.argv]), file=sys.stderr)
    try:
        args = get_parser().parse_args(cmd)
        logging.basicConfig(level=args.log_level, format=LOG_FORMAT)
        return inference(args)
    except (*MISTAKES, yaml.YAMLError) as e:
        logger.error("%s", what_is_wrong(e))
        return 2


if __name__ == "__main__":
    start_sooner(check_types=False)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("asr_inference: interrupted", file=sys.stderr)
        sys.exit(130)
