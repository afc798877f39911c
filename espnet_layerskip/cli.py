"""The command ``espnet-layerskip <verb>``. Verbs import what they need when they run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from espnet_layerskip.method.settings import DECODER_TYPES, PRECISIONS, SKIP_CONTEXTS


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs; builds without loading ESPnet."""
    parser = argparse.ArgumentParser(
        prog="espnet-layerskip",
        description="CTC blank triggered dynamic layer-skipping for ESPnet.",
        epilog="Training and decoding with ESPnet's arguments: python -m "
        "espnet_layerskip.bin.asr_train, python -m espnet_layerskip.bin.asr_inference.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        verb.add_options(verbs.add_parser(name, help=verb.help))
    return parser


def add_transcribe(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``transcribe``."""
    parser.description = (
        "Print 'utt_id text' lines to stdout in input order; everything else goes to stderr. "
        "Audio of another rate is resampled, several channels are averaged. A file that cannot "
        "be used is named on stderr, the others are transcribed, and the exit status is 1."
    )
    add = parser.add_argument
    add("--model", required=True, metavar="EXPDIR_OR_ZIP", help="experiment directory, or zip")
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
    add("--precision", choices=PRECISIONS, default="float32", help="of the encoder")
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
    add("--num-threads", type=int, metavar="N", help="CPU threads; default: PyTorch's choice")
    add("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    add("--times", metavar="FILE.ctm", help="write the times of the words in seconds (CTM)")
    add("--stats", metavar="FILE.json", help="write times, RTF and skip ratio")
    add("--wav-scp", metavar="FILE", help="table of lines 'utt_id path'")
    add("audio", nargs="*", metavar="AUDIO", help="audio files; their stem is the utt_id")


def add_calibrate(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``calibrate``."""
    parser.description = (
        "Choose the cheapest skipping setting (threshold, extension and, if there are several, "
        "gates) that keeps an error budget on a development set by greedy search, and store it "
        "beside the checkpoint in calibration.json, which --blank-threshold auto reads. Kept "
        "means: the upper limit of the 95 % interval of a paired bootstrap over utterances is "
        "within the budget. Where no setting keeps it, 'off' is stored, what would be needed is "
        "said, and the exit status is 3."
    )
    add = parser.add_argument
    add("--exp", required=True, metavar="EXPDIR", help="experiment directory")
    add("--data", required=True, metavar="DIR", help="development set: wav.scp, text and utt2spk")
    add(
        "--max-wer-increase",
        required=True,
        type=float,
        metavar="PCT",
        help="budget: allowed increase of the metric, in percent of what the same weights have at "
        "full depth (relative: 1 allows 10.1 %% where full depth has 10 %%)",
    )
    add("--metric", choices=("wer", "cer"), default="wer", help="default: wer")
    add(
        "--thresholds",
        nargs="+",
        metavar="P",
        help="thresholds to try, beside the configured one; default: 0.5 0.8 0.9 0.95 0.99 0.999",
    )
    add(
        "--extensions",
        nargs="+",
        metavar="L,R",
        help="extensions to try, beside the configured one; default: 0,0 1,1 2,2",
    )
    add("--model-file", metavar="F", help="checkpoint; default: the best averaged one")
    add(
        "--allow-point-estimate",
        action="store_true",
        help="where no upper limit keeps the budget, go by the rates as measured",
    )
    add(
        "--if-needed",
        action="store_true",
        help="do nothing where this checkpoint is calibrated for this budget and set already",
    )
    add("--num-threads", type=int, metavar="N", help="CPU threads; default: PyTorch's choice")


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``report``."""
    parser.description = (
        "Measure an experiment with a gate and write OUTPUT/index.html, one page with figures, "
        "audio and numbers that opens without a network, the figures as PNG and SVG, and "
        "report.json. Progress goes to stderr."
    )
    add = parser.add_argument
    add("--exp", type=Path, required=True, metavar="DIR", help="experiment with a gate")
    add(
        "--compare",
        nargs="+",
        action="extend",
        default=[],
        metavar="[LABEL=]DIR",
        help="other experiments in the same axes, with or without a gate",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write into")
    add(
        "--data",
        type=Path,
        metavar="DIR",
        help="wav.scp, text and utt2spk; default: the recipe's dump/raw/test",
    )
    add("--model-file", metavar="F", help="checkpoint; default: the best averaged one")
    add(
        "--utt-id",
        action="append",
        default=[],
        metavar="ID",
        help="utterance to show, can be repeated; default: a few informative ones",
    )
    add(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder of decodings, can be that of compare_exps; default: OUTPUT/cache",
    )
    add("--num-threads", type=int, default=1, metavar="N", help="while timing (default: 1)")


def add_benchmark(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``benchmark``."""
    parser.description = (
        "Time a model with a gate, interleaved with its rivals, and decode the whole test set with "
        "every one of them: skipping on and off, ESPnet's own classes with the same weights, int8, "
        "stopped at the gate, and the twins. Three scopes: encoder; model (frontend, encoder, "
        "head); e2e (wave file to text, against ESPnet's Speech2Text with beam 1 and 10). Writes "
        "OUTPUT, and a table (.md) and a figure (.png) beside it. Progress goes to stderr."
    )
    add = parser.add_argument
    add("--model", required=True, metavar="EXPDIR_OR_ZIP", help="experiment with a gate, or zip")
    add("--model-file", metavar="F", help="checkpoint, of the twins too; default: the best one")
    add("--wav-scp", required=True, type=Path, metavar="F", help="test set: lines 'utt_id path'")
    add(
        "--text",
        required=True,
        type=Path,
        metavar="F",
        help="its transcripts: lines 'utt_id words'; utterances of one speaker are joined to long "
        "inputs by utt2spk beside it, else by the names up to their first '-'",
    )
    add("--output", required=True, type=Path, metavar="F.json", help="file to write")
    add("--scope", default="encoder,model,e2e", metavar="S,S", help="default: encoder,model,e2e")
    add(
        "--twin",
        nargs="+",
        action="extend",
        default=[],
        metavar="[LABEL=]EXPDIR",
        help="other experiments at full depth: a shallower one; 'stock', a trained stock twin",
    )
    add("--ngram-file", type=Path, metavar="F", help="ARPA or KenLM file: rows with an n-gram")
    add("--lexicon", type=Path, metavar="F", help="its words; then the n-gram is over words")
    add("--lm-exp", type=Path, metavar="DIR", help="ESPnet's LM: rows of its search with that")
    add("--lm-weight", type=float, default=0.3, metavar="W", help="of that LM (default: 0.3)")
    add(
        "--skip",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="threshold=P, extension=L,R, context=C, gates=K,K; default: as calibrated, else as "
        "configured",
    )
    add("--num-threads", default="1,2", metavar="N,N", help="CPU threads (default: 1,2)")
    add("--batch-size", default="1,8", metavar="N,N", help="inputs in a batch (default: 1,8)")
    add("--seconds", default="3,10,30", metavar="S,S", help="of an input (default: 3,10,30)")
    add("--repeats", type=int, default=5, metavar="N", help="timed passes, at least 5 (default: 5)")
    add(
        "--num-inputs",
        type=int,
        metavar="N",
        help="different inputs of each length; default: of 40 s together, at most 8",
    )
    add(
        "--max-wer-increase",
        type=float,
        default=1.0,
        metavar="PCT",
        help="a row fails if its WER is more than PCT percent (relative) above that of the same "
        "weights and search at full depth (default: 1)",
    )


class Verb(NamedTuple):
    """A verb: its line in --help, its options, and the module whose ``run(args)`` does it."""

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    module: str


VERBS = {
    "transcribe": Verb("audio files to text", add_transcribe, "espnet_layerskip.verbs.transcribe"),
    "calibrate": Verb(
        "choose the skipping setting for an error budget",
        add_calibrate,
        "espnet_layerskip.verbs.calibrate",
    ),
    "report": Verb(
        "figures and a page about an experiment", add_report, "espnet_layerskip.verbs.report"
    ),
    "benchmark": Verb(
        "speed and accuracy against ESPnet's own classes",
        add_benchmark,
        "espnet_layerskip.verbs.benchmark",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: Arguments after the program's name; None means those of the command line.

    Returns:
        Exit status: 0; 1 if an input failed; 2 if the call or the model cannot be used; others
        as the verb's --help says.
    """
    args = get_parser().parse_args(argv)
    args.argv = list(sys.argv[1:] if argv is None else argv)
    try:
        status: int = import_module(VERBS[args.verb].module).run(args)
        return status
    except (ValueError, FileNotFoundError) as e:
        print(f"espnet-layerskip {args.verb}: error: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
