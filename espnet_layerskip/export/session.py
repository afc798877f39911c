"""onnxruntime: sessions of exported graphs, and what can go wrong with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from espnet_layerskip.export.folder import check_references
from espnet_layerskip.method.settings import check_count


def onnxruntime_module() -> Any:
    """Import the package ``onnxruntime``.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as e:
        raise ValueError(
            "an exported model needs onnxruntime: pip install 'espnet_layerskip[onnx]'"
        ) from e
    return onnxruntime


def execution_provider(device: str) -> tuple[str, dict[str, str]]:
    """Return onnxruntime's name of a device, and its options.

    Args:
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: If the installed onnxruntime does not have it.
    """
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise ValueError(f"device must be cpu, cuda or cuda:N, but got {device!r}")
    name = "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"
    there = onnxruntime_module().get_available_providers()
    if name not in there:
        raise ValueError(
            f"device {device} needs {name}, but onnxruntime has only {', '.join(there)}: "
            "pip install onnxruntime-gpu, or use --device cpu"
        )
    return name, {} if match[1] is None else {"device_id": match[1]}


def open_session(
    file: Path, device: str = "cpu", num_threads: int | None = None, flush_denormals: bool = False
) -> Any:
    """Return an InferenceSession.

    Args:
        file: The graph; its weights are in the same folder.
        device: See `execution_provider`.
        num_threads: CPU threads, at least 1; None = onnxruntime's choice, the number of cores.
        flush_denormals: Let this thread, and onnxruntime's own ones, take numbers below 1e-38 for
            zero, in whatever they compute from now on. The tails of sharp attention are such
            numbers, and a processor is slow with them. onnxruntime does so at the first session
            of a process only.

    Raises:
        ValueError: If the graph cannot be opened, or not on that device or with so many threads.
    """
    if num_threads is not None:
        num_threads = check_count("num_threads", num_threads)
    runtime, provider = onnxruntime_module(), execution_provider(device)
    check_references(file)
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    # threads that wait would else keep their cores busy, for whatever runs next there
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if flush_denormals:
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    try:
        session = runtime.InferenceSession(str(file), options, providers=[provider])
    except Exception as e:  # its own kinds of errors, each derived from Exception only
        why = " ".join(str(e).split())
        raise ValueError(f"{file} cannot be opened by onnxruntime: {why}") from e
    if session.get_providers()[0] != provider[0]:  # it falls back without an error
        raise ValueError(f"device {device}: onnxruntime could not start {provider[0]}")
    return session
