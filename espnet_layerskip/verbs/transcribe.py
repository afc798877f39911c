"""The verb ``transcribe``: audio files to text. What it does is in transcribe_run.py."""

from __future__ import annotations

import argparse

from espnet_layerskip.inference.options import DECODER_TYPES
from espnet_layerskip.method.settings import PRECISIONS, SKIP_CONTEXTS
from espnet_layerskip.parallel import add_worker_options

FORMATS = ("text", "json", "srt", "vtt", "ctm", "tsv")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Print 'utt_id text' lines to stdout in input order; everything else goes to stderr. "
        "Audio of another rate is resampled, several channels are averaged. A file that cannot "
        "be used is named on stderr and the others are transcribed."
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
    add("--beam-size", type=int, metavar="N", help="of a search (default: 10)")
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
    add(
        "--device",
        default="cpu",
        metavar="D",
        help="cpu (the default), cuda, cuda:N, or auto: a GPU where there is one",
    )
    add(
        "--format",
        choices=FORMATS,
        default="text",
        help="of stdout: lines 'utt_id text' (the default), one JSON object a line, subtitles of "
        "one AUDIO (srt, vtt), or words with times and confidence (ctm, tsv)",
    )
    add(
        "--output-dir",
        metavar="DIR",
        help="write each transcript to a file of its own, DIR/utt_id.txt or .json, .srt, .vtt, "
        ".ctm, .tsv, and print the paths instead; files that are there are replaced",
    )
    add(
        "--confidence-temperature",
        type=float,
        metavar="T",
        help="above 1 makes the confidences of words and utterances less sure, 1 leaves them as "
        "they are; default: what espnet-layerskip calibrate has stored with the model, else 1",
    )
    add("--times", metavar="FILE.ctm", help="write the times of the words in seconds (CTM)")
    add(
        "--stats", metavar="FILE.json", help="write times, RTF, skip ratio, and what failed and why"
    )
    add("--wav-scp", metavar="FILE", help="table of lines 'utt_id path'")
    add(
        "--allow-pipes",
        action="store_true",
        help="run paths that end with | as shell commands, as in Kaldi ('a sox a.wav -t wav - |'); "
        "only for tables that you trust",
    )
    add(
        "audio",
        nargs="*",
        metavar="AUDIO",
        help="audio files, or - for standard input; the utt_id is the stem, with folders before it "
        "where several have the same",
    )


def run(args: argparse.Namespace) -> int:
    """Transcribe as the arguments of ``add_options`` say.

    Returns:
        Exit status: 0, or 1 if an utterance failed.

    Raises:
        ValueError: If the call or the model cannot be used.
        OSError: If the output cannot be written.
    """
    from espnet_layerskip.verbs.transcribe_run import transcribe

    return transcribe(args)
