"""What ``transcribe`` is asked for, checked before anything that takes seconds is imported."""

from __future__ import annotations

import argparse
import importlib.util
import os
import stat
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from espnet_layerskip.inference.audio import Utterance, check_unique, read_wav_scp
from espnet_layerskip.inference.transcriber import DEVICE
from espnet_layerskip.verbs.command_line import check_output
from espnet_layerskip.verbs.transcript_formats import SUBTITLES

STDIN = "-"


def list_utterances(audio: Sequence[str], wav_scp: str | None) -> list[Utterance]:
    """Return the utterances of the command line.

    Raises:
        ValueError: If there is none, both kinds are given, or a file is given twice.
    """
    if bool(audio) == (wav_scp is not None):
        raise ValueError("either AUDIO files or --wav-scp FILE is needed, and not both")
    if wav_scp is not None:
        return read_wav_scp(wav_scp)
    utterances = [Utterance(*pair) for pair in zip(name_files(audio), audio, strict=True)]
    check_unique(utterances, "AUDIO")
    return utterances


def name_files(paths: Sequence[str]) -> list[str]:
    """Return a name for each file: its stem, white space as ``_``.

    Where several have the same, so many folders stand before it, joined by ``_``, as tell them
    apart; where these do not either (``a.wav`` and ``a.flac``), the whole file name is used. The
    names depend on the paths alone. Only the same path again has the same name.

    Example:
        >>> name_files(["a.wav", "x/b.wav", "y/b.wav", "c.wav", "c.flac", "-"])
        ['a', 'x_b', 'y_b', 'c.wav', 'c.flac', 'stdin']
    """
    names = {path: _name(path, 1, False) for path in paths}
    deepest = max((len(Path(path).parts) for path in paths), default=1)
    for whole in (False, True):
        for depth in range(1, 1 + deepest):
            count = Counter(names.values())
            names = {
                path: _name(path, depth, whole) if count[name] > 1 else name
                for path, name in names.items()
            }
    return [names[path] for path in paths]


def _name(path: str, depth: int, whole: bool) -> str:
    if path == STDIN:
        return "stdin"
    *folders, name = [part for part in Path(path).parts if part != "/"] or [path]
    folders = folders[len(folders) - depth + 1 :] if depth > 1 else []
    return "_".join(" ".join([*folders, name if whole else Path(name).stem]).split())


def check_options(args: argparse.Namespace, utterances: Sequence[Utterance]) -> None:
    """Check the values of options, and the files that they name.

    Args:
        args: As ``add_options`` of the verb describes them.
        utterances: What is to be transcribed.

    Raises:
        ValueError: For a value that no model could use; names the option.
    """
    for name in ("batch_size", "beam_size", "num_threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, but got {value}")
    if args.ctc_weight is not None and not 0.0 <= args.ctc_weight <= 1.0:
        raise ValueError(f"--ctc-weight must be in [0, 1], but got {args.ctc_weight}")
    from espnet_layerskip.decoding.confidence import check_temperature

    check_temperature(args.confidence_temperature, "--confidence-temperature")
    if not DEVICE.fullmatch(args.device):
        raise ValueError(f"--device must be auto, cpu, cuda or cuda:N, but got {args.device!r}")
    _check_settings(args)
    for name in ("ngram_file", "lexicon"):
        path = getattr(args, name)
        if path and not Path(path).is_file():
            raise ValueError(f"--{name.replace('_', '-')} {path}: no such file")
    inputs = [*(utt.path for utt in utterances), *option_files(args)]
    for name in ("stats", "times"):
        if path := getattr(args, name):
            check_output(f"--{name}", path, inputs)
    if args.stats and args.times and os.path.realpath(args.stats) == os.path.realpath(args.times):
        raise ValueError(f"--stats and --times would both be {args.stats}: name two files")
    count = len(utterances)
    if args.format in SUBTITLES and count > 1 and args.output_dir is None:
        raise ValueError(
            f"--format {args.format} has no place for the name of an utterance: give one AUDIO, or "
            f"a folder for a file of each, --output-dir DIR, but got {count} and no folder"
        )
    if args.allow_pipes and args.wav_scp is None:
        raise ValueError(
            "--allow-pipes is for the paths of a table: give --wav-scp, or leave it out"
        )
    if args.confidence_temperature is not None and args.format not in ("json", "ctm", "tsv"):
        raise ValueError(
            f"--confidence-temperature is of no use to --format {args.format}, which has no "
            "confidences: choose json, ctm or tsv"
        )
    if STDIN in args.audio and (args.dask or args.cmd):
        raise ValueError("AUDIO - is standard input, which --dask and --cmd cannot give others")


def option_files(args: argparse.Namespace) -> list[str]:
    """Return the files that options name, to be read."""
    names = ("model", "model_file", "wav_scp", "ngram_file", "lexicon")
    return [path for name in names if (path := getattr(args, name))]


def _check_settings(args: argparse.Namespace) -> None:
    """Read what the model will read, for its errors."""
    from espnet_layerskip.decoding.frame_drop import choose_drop_threshold
    from espnet_layerskip.decoding.make_decoder import USERS, check_used
    from espnet_layerskip.inference.segments import make_segmentation
    from espnet_layerskip.method.settings import SkipSettings

    SkipSettings(
        blank_threshold=args.blank_threshold,
        spike_extension=args.spike_extension,
        skip_context=args.skip_context,
    )
    choose_drop_threshold(args.drop_threshold, args.decoder)
    check_used(args.decoder, **{name: getattr(args, name) for name in USERS if name in args})
    if args.decoder == "ngram" and not args.ngram_file and not args.lexicon:
        raise ValueError("--decoder ngram needs --ngram-file, --lexicon or both: give one")
    if args.segment_size == "off" and args.hop_size is not None:
        raise ValueError("--hop-size is of no use with --segment-size off: leave one out")
    # with the shortest frames that there are: what does not fit these fits no model
    make_segmentation(args.segment_size, args.hop_size, 1, 16000)


def check_model(model: str, model_file: str | None) -> None:
    """Look whether there is a model, without opening it.

    Raises:
        ValueError: If there is nothing that could be one.
    """
    from espnet_layerskip.export.folder import is_export, read_description
    from espnet_layerskip.inference.pretrained import find_in_directory, find_model, is_model_tag

    path = Path(model)
    if is_export(path):
        if model_file is not None:
            raise ValueError(f"--model-file is for trained models, but {model} is an exported one")
        read_description(path)
        for name in ("onnxruntime", "soundfile"):
            if importlib.util.find_spec(name) is None:
                raise ValueError(
                    f"an exported model needs {name}: pip install 'espnet_layerskip[onnx]'"
                )
    elif (path / "meta.yaml").is_file():  # an archive that somebody unpacked
        find_model(path, model_file)
    elif path.is_dir():
        find_in_directory(path, model_file)
    elif not path.exists():
        if not is_model_tag(model):
            raise ValueError(
                f"--model {model}: no such file or directory, nor is it a tag of espnet_model_zoo "
                "(name/of_model)"
            )
        zoo = "espnet_model_zoo"
        if zoo not in sys.modules and importlib.util.find_spec(zoo) is None:
            find_model(path)  # says what is missing
    elif stat.S_ISREG(path.stat().st_mode):
        import zipfile

        if not zipfile.is_zipfile(path):
            find_model(path)  # says what it is not
