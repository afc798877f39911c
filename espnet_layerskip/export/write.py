"""Writing the folder of an exported model."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import espnet_layerskip
from espnet_layerskip.export.folder import (
    DESCRIPTION,
    FULL,
    MODEL,
    SHERPA_TOKENS,
    STOPPED,
    TOKENS,
    WEIGHTS,
    Description,
)
from espnet_layerskip.export.graph import OPSET, onnx_module
from espnet_layerskip.export.model import Exporter, check_exportable, encoder_name
from espnet_layerskip.export.quantize import quantized
from espnet_layerskip.files import write_bytes, write_text
from espnet_layerskip.inference.calibration import FILE_NAME
from espnet_layerskip.inference.segments import MIN_OVERLAP
from espnet_layerskip.inference.times import SPACE, SUBSAMPLING, WORD_START
from espnet_layerskip.method.settings import check_choice

PRECISIONS = ("float32", "int8")
TOKEN_TYPES = ("char", "bpe", "word")
LONGEST = 40.0  # seconds; longer audio is cut into segments anyway
_APART = 1024  # bytes of the smallest array that is written beside the graphs
_ALIGNED = 4096  # of its first byte, so that it can be mapped into memory


def export_model(
    speech2text: Any,
    output: str | Path,
    precision: str = "float32",
    longest: float = LONGEST,
    force: bool = False,
) -> Description:
    """Write a model as ONNX graphs, with all that their runtime needs.

    Args:
        speech2text: Our Speech2Text; its encoder's settings become those of the graphs.
        output: Folder to make.
        precision: float32, or int8 for the products with weights.
        longest: Seconds of the longest input.
        force: Replace an earlier export.

    Returns:
        What was written beside the graphs.

    Raises:
        ValueError: If the model cannot be exported (says which part, and why), ``output`` exists,
            or a package is missing.
    """
    check_choice("precision", precision, PRECISIONS)
    onnx, output = onnx_module(), Path(output)
    check_output(output, force)
    model, args = speech2text.asr_model, speech2text.asr_train_args
    settings = model.encoder.settings
    check_exportable(model, settings)
    check_text(args)
    stft = model.frontend.stft
    subsampling = SUBSAMPLING[args.encoder_conf.get("input_layer", "conv2d")]
    frame = model.frontend.hop_length * subsampling
    rate = speech2text.sample_rate
    if longest < (least := 4 * MIN_OVERLAP * frame / rate):
        raise ValueError(
            f"longest must be at least {least:g} s for this model, but got {longest:g} s: longer "
            "audio is cut into segments of half of it"
        )
    exporter = Exporter(model, settings, int(longest * rate / frame) + 1)
    gates, exit_layer = sorted(exporter.gates), settings.exit_layer
    graphs: dict[str, Any] = {MODEL: exporter.graph(gates)}
    if gates:
        exit_layer = exit_layer or gates[0]
        graphs |= {FULL: exporter.graph(), STOPPED: exporter.graph(stop=exit_layer)}
        thresholds = tuple(exporter.gates[k] for k in gates)
        settings = replace(settings, blank_threshold=thresholds, gates_in_use=tuple(gates))
    metadata = {
        "sample_rate": str(rate),
        "vocab_size": str(exporter.vocab_size),
        "model_type": "espnet_layerskip_ctc",
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as made:
        folder = Path(made) / "export"
        folder.mkdir()
        weights = bytearray()
        places: dict[bytes, int] = {}
        for name, graph in graphs.items():
            proto = graph.model(metadata)
            if precision == "int8":
                proto = quantized(proto)
            move_out(onnx, proto, weights, places)
            write_bytes(folder / name, proto.SerializeToString())
        write_bytes(folder / WEIGHTS, bytes(weights))
        tokens = model.token_list
        lines = (f"{token} {i}\n" for i, token in enumerate(tokens))
        write_text(folder / TOKENS, "".join(lines))
        if scale_does_not_matter(model.normalize):
            lines = (f"{sherpa_token(t, args.token_type)} {i}\n" for i, t in enumerate(tokens))
            write_text(folder / SHERPA_TOKENS, "".join(lines))
        if speech2text.calibration is not None:
            speech2text.calibration.save(folder / FILE_NAME)
        found = Description(
            sizes={path.name: path.stat().st_size for path in sorted(folder.iterdir())},
            precision=precision,
            sample_rate=rate,
            frame=frame,
            shortest=shortest_input(model),
            longest=int(longest * rate),
            token_type=args.token_type,
            encoder=encoder_name(model.encoder),
            num_layers=len(model.encoder.encoders),
            gates=gates,
            exit_layer=exit_layer,
            settings=settings,
            frontend={
                "n_fft": stft.n_fft,
                "win_length": stft.win_length,
                "hop_length": stft.hop_length,
                "window": stft.window,
                "center": stft.center,
                **{k: v for k, v in model.frontend.logmel.mel_options.items() if k != "n_fft"},
                "normalize": type(model.normalize).__name__ if model.normalize else None,
            },
            versions={
                "espnet_layerskip": espnet_layerskip.__version__,
                **{name: version(name) for name in ("espnet", "onnx")},
                "torch": torch.__version__,
                "opset": str(OPSET),
            },
            confidence_temperature=speech2text.confidence_temperature,
        )
        found.save(folder)
        if output.exists():
            output.rename(Path(made) / "before")
        shutil.move(folder, output)
    return found


def check_output(output: Path, force: bool) -> None:
    """Raise ValueError if a folder may not be written."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / DESCRIPTION).is_file():
        raise ValueError(f"{output} is there and is no exported model: choose another --output")
    if not force:
        raise ValueError(f"{output} is there: choose another --output, or replace it with --force")


def check_text(args: Any) -> None:
    """Raise ValueError if the runtime could not read audio or write text as the model does."""
    if args.token_type not in TOKEN_TYPES:
        known = ", ".join(TOKEN_TYPES)
        raise ValueError(f"token_type {args.token_type} cannot be exported, only {known}")
    if getattr(args, "speech_volume_normalize", None) is not None:
        raise ValueError("speech_volume_normalize cannot be exported: the runtime does not scale")


def scale_does_not_matter(normalize: Any) -> bool:
    """Return whether louder samples give the same: sherpa-onnx scales them to unit variance."""
    return type(normalize).__name__ == "UtteranceMVN" and normalize.norm_means


def sherpa_token(token: str, token_type: str) -> str:
    """Return a token in the spelling of sherpa-onnx, in which words start with U+2581."""
    if token == SPACE:
        return WORD_START
    starts = token_type == "word" and not token.startswith("<")
    return WORD_START + token if starts else token


def shortest_input(model: Any) -> int:
    """Return the number of samples that give one encoder frame."""
    stft, frames = model.frontend.stft, 1
    for conv in reversed([m for m in model.encoder.embed.conv if hasattr(m, "stride")]):
        frames = (frames - 1) * conv.stride[0] + conv.kernel_size[0]
    samples = (frames - 1) * stft.hop_length + stft.n_fft
    if not stft.center:
        return int(samples)
    return int(max(samples - 2 * (stft.n_fft // 2), stft.n_fft // 2 + 1))


def move_out(onnx: Any, proto: Any, weights: bytearray, places: dict[bytes, int]) -> None:
    """Move the large constants of a graph to the weights that all graphs share.

    Args:
        onnx: The package.
        proto: ModelProto; changed in place.
        weights: Content of the file so far; what is new is appended.
        places: Where each content is, by its digest.
    """
    for tensor in proto.graph.initializer:
        raw = onnx.numpy_helper.to_array(tensor).tobytes()
        if len(raw) < _APART:
            continue
        digest = hashlib.sha256(raw).digest()
        if digest not in places:
            weights.extend(bytes(-len(weights) % _ALIGNED))
            places[digest] = len(weights)
            weights.extend(raw)
        for name in ("raw_data", "float_data", "int32_data", "int64_data"):
            tensor.ClearField(name)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        where = {"location": WEIGHTS, "offset": places[digest], "length": len(raw)}
        for key, value in where.items():
            tensor.external_data.add(key=key, value=str(value))


def describe(found: Description) -> str:
    """Return what was exported as one line of JSON, for the verb."""
    shown = ("precision", "encoder", "num_layers", "gates", "sample_rate")
    return json.dumps({name: getattr(found, name) for name in shown})
