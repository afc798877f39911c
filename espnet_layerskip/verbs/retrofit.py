"""The verb ``retrofit``: from a trained ESPnet model to a gated, calibrated one."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet_layerskip.files import write_text
from espnet_layerskip.inference.quiet import start
from espnet_layerskip.method.settings import SKIP_CONTEXTS, read_gates
from espnet_layerskip.parallel import add_worker_options, workers_from
from espnet_layerskip.verbs.command_line import held, make_folder

if TYPE_CHECKING:
    from espnet_layerskip.evaluation.open_model import OpenedModel
    from espnet_layerskip.evaluation.retrofit import Budget, Judgement
    from espnet_layerskip.evaluation.retrofit_data import Corpus

REJECTED = 4  # exit status; 3 is calibrate's for a setting that nothing keeps
RECORD, PAGE = "retrofit.json", "retrofit.md"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``retrofit``."""
    parser.description = (
        "Give a trained ESPnet model gates, train its upper layers (and new heads, where a gate's "
        "layer has no trained CTC) shortly by distillation from its own full depth, choose the "
        "skipping setting on a development set, and pack the result. An interrupted run goes on "
        "with the same command. Exit status: 0; 1 if some of the data could not be used; 4 if no "
        "setting keeps the budget: what was made is then in OUTPUT/rejected."
    )
    add = parser.add_argument
    add("--model", required=True, metavar="EXPDIR_ZIP_OR_TAG", help="the trained model")
    add("--model-file", metavar="F", help="checkpoint; default: the best averaged one")
    add("--data", required=True, metavar="DIR", help="to learn from: wav.scp, text if labelled")
    add("--dev", metavar="DIR", help="development set; default: a share of --data is held out")
    add("--dev-share", type=float, default=0.1, metavar="S", help="of --data; default: 0.1")
    add(
        "--labels",
        choices=("all", "dev", "none"),
        default="all",
        help="transcripts to use: of --data and --dev (all, the default), of --dev only, or none",
    )
    add("--gates", metavar="K,K", help="layers, from 1; default: near the middle, with trained CTC")
    add("--skip-context", choices=SKIP_CONTEXTS, help="default: full where the encoder can")
    add("--output", required=True, metavar="DIR", help="experiment folder to make")
    add("--force", action="store_true", help="begin again, over what an earlier run has left")
    add("--epochs", type=int, default=4, help="passes over the data; 0 = no training; default: 4")
    add(
        "--lr",
        type=float,
        help="highest learning rate of the upper layers; default: half of that of the model's own "
        "training (optim_conf), at most 1e-3",
    )
    add("--head-lr", type=float, default=2e-3, help="of new heads; default: 2e-3")
    add("--batch-seconds", type=float, default=40.0, metavar="S", help="of audio; default: 40")
    add("--no-specaug", action="store_true", help="train without the model's SpecAugment")
    add("--metric", choices=("wer", "cer"), default="wer", help="of the budget; default: wer")
    add(
        "--max-wer-increase",
        type=float,
        default=5.0,
        metavar="PCT",
        help="budget with transcripts: allowed increase of the metric over the stock model at full "
        "depth, in percent of it (relative); default: 5",
    )
    add(
        "--max-disagreement",
        type=float,
        default=5.0,
        metavar="POINTS",
        help="budget without transcripts: words (or characters) in a hundred that may differ from "
        "the stock model's at full depth; default: 5",
    )
    add(
        "--strict",
        action="store_true",
        help="accept a setting only if the upper limit of its 95 %% interval keeps the budget; "
        "default: where none does, go by what was measured, with neighbours and a warning",
    )
    add("--seed", type=int, default=0)
    add("--num-threads", type=int, metavar="N", help="CPU threads; default: PyTorch's choice")
    add_worker_options(parser)
    add("--device", default="cpu", help="to train on: cpu, cuda or cuda:N; default: cpu")


def run(args: argparse.Namespace) -> int:
    """Retrofit as the arguments of `add_options` say.

    Returns:
        Exit status: 0; 4 if the result was rejected; else 1 if some of the data could not be used.

    Raises:
        ValueError: If the call, the model or the data cannot be used.
    """
    check_options(args)
    output, model = Path(args.output), Path(args.model)
    if output.resolve() == (model if model.is_dir() else model.parent).resolve():
        raise ValueError(f"--output {output} holds the model, which would be lost: name another")
    make_folder("--output", output)
    start()
    # ESPnet and its imports print
    with held("--output", output), contextlib.redirect_stdout(sys.stderr):
        record, where = _retrofit(args)
        from espnet_layerskip.evaluation.retrofit_page import retrofit_page
    print(retrofit_page(record))
    print(f"written: {where}")
    if record["found"]["kept_by"] == "nothing":
        return REJECTED
    return 1 if record.get("refused") else 0


def check_options(args: argparse.Namespace) -> None:
    """Raise ValueError for a number out of its range."""
    for name in ("lr", "head_lr", "batch_seconds", "max_wer_increase", "max_disagreement"):
        value = getattr(args, name)
        if value is not None and not 0.0 < value < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} must be above 0, but got {value:g}")
    if args.epochs < 0:
        raise ValueError(f"--epochs must be 0 or more, but got {args.epochs}")
    if args.num_threads is not None and args.num_threads < 1:
        raise ValueError(f"--num-threads must be at least 1, but got {args.num_threads}")
    if not 0.0 < args.dev_share < 1.0:
        raise ValueError(f"--dev-share must be between 0 and 1, but got {args.dev_share:g}")
    workers_from(args)
    if args.labels == "dev" and args.dev is None:
        raise ValueError("--labels dev needs --dev DIR, the set whose transcripts are used")


def _retrofit(args: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """Return the record, and where the model is."""
    import torch

    if args.num_threads is not None:
        torch.set_num_threads(args.num_threads)
    from espnet_layerskip.evaluation.environment import environment_record, finish_record, typed
    from espnet_layerskip.evaluation.open_model import open_model
    from espnet_layerskip.evaluation.retrofit import Budget, judge_retrofit
    from espnet_layerskip.evaluation.retrofit_data import (
        hold_out,
        load_dev,
        read_corpus,
        with_usable_audio,
    )
    from espnet_layerskip.evaluation.retrofit_model import (
        build_student,
        default_gates,
        retrofit_config,
        write_model,
    )
    from espnet_layerskip.training.device import check_device

    check_device(args.device)
    output, environment = Path(args.output), environment_record()
    opened = open_model(args.model, args.model_file, read_gates(args.gates, "--gates"))
    if opened.no_gates:
        raise ValueError(f"{args.model} cannot have gates: {opened.no_gates}")
    gates = opened.gates if args.gates else default_gates(opened)
    if getattr(opened.model.ctc, "interctc_lo", None):
        raise ValueError(
            f"{args.model} has heads of its own for its gates (interctc_head: own) already: choose "
            "its setting with espnet-layerskip calibrate"
        )
    new_heads = sorted(set(gates) - set(opened.trained))
    if new_heads and not args.epochs:
        raise ValueError(
            f"--epochs 0 needs gates at layers with a trained CTC ({list(opened.trained)}), but "
            f"got {list(gates)}: their heads have to be trained"
        )
    corpus = with_usable_audio(read_corpus(Path(args.data), args.labels == "all"))
    refused = dict(corpus.refused)
    if args.dev is None:
        corpus, dev = hold_out(corpus, args.dev_share, args.seed)
    else:
        dev = with_usable_audio(read_corpus(Path(args.dev), args.labels != "none"))
        refused |= dev.refused
    question = _question(args, opened, gates, corpus, dev)
    finished = begin(output, question, args.force)
    if finished is not None:
        return finished
    data = load_dev(dev, opened.speech2text.sample_rate)
    config = retrofit_config(opened, gates, args.skip_context, new_heads)
    student = build_student(opened, config)
    training = {"epochs": args.epochs, "transcripts": bool(corpus.text)}
    if not (workers := workers_from(args)).here:
        training["workers"] = workers.num
    if args.epochs:
        training |= _train(args, opened, student, corpus, new_heads, output / "work", question)
    write_model(output / "work", config, student.state_dict())
    by_labels = bool(data.text)
    amount = args.max_wer_increase if by_labels else args.max_disagreement
    budget = Budget(args.metric, amount, by_labels)
    same_heads = bool(args.epochs) and not new_heads
    judgement = judge_retrofit(opened, output / "work", data, budget, not args.strict, same_heads)
    learnt = f"{len(corpus.wav)} utterances of {corpus.name}, {len(corpus.text)} with transcripts"
    record = {
        "question": question,
        "command": typed(["espnet-layerskip", *args.argv]),
        "environment": finish_record(environment),
        "model": Path(args.model).name,
        "checkpoint": opened.checkpoint,
        "encoder": opened.stock_class,
        "layers": opened.num_layers,
        "gates": list(gates),
        "new_heads": new_heads,
        "learnt_from": learnt if args.epochs else "nothing: the weights are the stock model's",
        "dev": {"name": dev.name, "utterances": len(data.speech), "sha256": question["dev"]},
        "budget": vars(budget),
        "budget_text": budget.describe(),
        "training": training,
        "found": judgement.to_json(),
        **({"refused": refused} if refused else {}),
    }
    return record, _finish(output, config, record, judgement, budget)


def _question(
    args: argparse.Namespace,
    opened: OpenedModel,
    gates: Sequence[int],
    corpus: Corpus,
    dev: Corpus,
) -> dict[str, Any]:
    """Return what the result depends on, as plain types."""
    from espnet_layerskip.evaluation.cache import digest

    names = (
        *("skip_context", "labels", "epochs", "lr", "head_lr", "batch_seconds", "no_specaug"),
        *("seed", "metric", "max_wer_increase", "max_disagreement", "strict"),
    )
    found: dict[str, Any] = {name: getattr(args, name) for name in names}
    for name, data in (("data", corpus), ("dev", dev)):
        rows = (f"{k} {v}".encode() for t in (data.wav, data.text) for k, v in sorted(t.items()))
        found[name] = digest(rows)
    return found | {"model": opened.sha256, "gates": list(gates)}


def begin(
    output: Path, question: dict[str, Any], force: bool
) -> tuple[dict[str, Any], Path] | None:
    """Make the output folder ready; return the record of a finished run of the same call.

    Args:
        output: Folder to write into.
        question: What the result depends on.
        force: Remove what an earlier run has left there.

    Raises:
        ValueError: If something else is there.
    """
    records = [where / RECORD for where in (output, output / "rejected")]
    done = next((path for path in records if path.is_file()), None)
    if force:
        for path in records:
            if path.is_file():
                for name in read_record(path)["files"]:
                    (path.parent / Path(name).name).unlink(missing_ok=True)
                path.unlink()
        with contextlib.suppress(OSError):  # not there, or something else is in it
            (output / "rejected").rmdir()
        shutil.rmtree(output / "work", ignore_errors=True)
    elif done is not None:
        record = read_record(done)
        if record["question"] != question:
            keys = {*record["question"], *question}
            changed = sorted(k for k in keys if record["question"].get(k) != question.get(k))
            raise ValueError(
                f"{output} holds a retrofit that differs in {', '.join(changed)}: name another "
                "--output, or give --force to replace it"
            )
        print(f"{output}: done already", file=sys.stderr)
        shutil.rmtree(output / "work", ignore_errors=True)
        return record, done.parent
    elif output.exists() and not (output / "work").is_dir() and any(output.iterdir()):
        raise ValueError(
            f"{output} exists and is not of a retrofit: name another --output, or give --force to "
            "write into it"
        )
    return None


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of a retrofit; a ValueError names one that is damaged."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(record["question"], dict) and isinstance(record["files"], list):
            return record
        raise TypeError("question or files")
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise ValueError(f"{path} is damaged ({e!r}): remove it, and what stands beside it") from e


def _train(
    args: argparse.Namespace,
    opened: OpenedModel,
    student: Any,
    corpus: Corpus,
    new_heads: Sequence[int],
    work: Path,
    question: dict[str, Any],
) -> dict[str, float]:
    """Train the student in place; return what `train` does."""
    from espnet_layerskip.evaluation.retrofit_data import examples, tokenized
    from espnet_layerskip.evaluation.retrofit_teacher import Teacher
    from espnet_layerskip.training.retrofit import Schedule, train
    from espnet_layerskip.training.retrofit_loss import Lesson, Pupil

    split = tokenized(opened.speech2text, corpus)
    found = examples(corpus, opened.speech2text.sample_rate, split, opened.model.token_list)
    schedule = Schedule(
        epochs=args.epochs,
        lr=args.lr or default_rate(opened.speech2text.asr_train_args),
        head_lr=args.head_lr,
        batch_seconds=args.batch_seconds,
        seed=args.seed,
    )
    teacher = opened.model.to(args.device)
    # transcripts can make it better than its teacher, whose states would hold it back
    near = 1.0 if opened.has_decoder or not corpus.text else 0.0
    pupil = Pupil(teacher, student.to(args.device), Lesson(state_weight=near), new_heads)
    gates, augment = student.encoder.gate_layer_idx, not args.no_specaug
    source = (args.model, args.model_file)
    by = Teacher(*source, gates, corpus, augment, args.device, opened)
    lessons = partial(by.lessons, workers=workers_from(args))
    result = train(pupil, found, schedule, lessons, work / "checkpoint.pth", question)
    for model in (teacher, student):
        model.to("cpu")
    return result


def default_rate(train_args: Any) -> float:
    """Return half of the learning rate of a training, at most 1e-3; 3e-4 where it has none."""
    rate = (getattr(train_args, "optim_conf", None) or {}).get("lr")
    return min(1e-3, float(rate) / 2) if rate else 3e-4


def _finish(
    output: Path,
    config: dict[str, Any],
    record: dict[str, Any],
    judgement: Judgement,
    budget: Budget,
) -> Path:
    """Put the files where they belong; return that folder."""
    import yaml

    from espnet_layerskip.evaluation.retrofit_model import CHECKPOINT, pack, with_own_files
    from espnet_layerskip.evaluation.retrofit_page import retrofit_page
    from espnet_layerskip.inference.calibration import FILE_NAME, Calibration
    from espnet_layerskip.training.checkpoint import file_digest

    where = output / "rejected" if judgement.kept_by == "nothing" else output
    config, copies = with_own_files(config, where)
    where.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(output / "work" / CHECKPOINT, where / f".{CHECKPOINT}.partial")
    os.replace(where / f".{CHECKPOINT}.partial", where / CHECKPOINT)
    reference = {} if budget.labels else {"reference": "the stock model at full depth"}
    Calibration(
        settings=judgement.chosen.settings,
        metric=budget.metric,
        max_increase=budget.amount,
        kept_by=judgement.kept_by,
        warnings=judgement.warnings,
        checkpoint=CHECKPOINT,
        sha256=file_digest(where / CHECKPOINT),
        data=record["dev"] | reference,
        full_depth=judgement.full_depth.to_json(),
        chosen=judgement.chosen.to_json(),
        sweep=[trial.to_json() for trial in judgement.sweep],
        environment=record["environment"],
        command=record["command"],
    ).save(where / FILE_NAME)
    # last: without it nothing takes the folder for a model, which so is never one uncalibrated
    write_text(where / "config.yaml", yaml.safe_dump(config, allow_unicode=True, sort_keys=False))
    packed = pack(where, copies)
    files = [CHECKPOINT, FILE_NAME, "config.yaml", PAGE, packed.name, *(c.name for c in copies)]
    record["files"] = files
    write_text(where / PAGE, retrofit_page(record))
    write_text(where / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    shutil.rmtree(output / "work")
    return where
