"""The folder of an exported model: its description, and graphs that are safe to open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from espnet_layerskip.decoding.confidence import check_temperature
from espnet_layerskip.files import read_lines, write_text
from espnet_layerskip.method.settings import SkipSettings

FORMAT = 1
"""Of the folder and of the graphs' inputs and outputs."""
MOST_SAMPLES = 768_000 * 3600  # of the longest input: an hour at the highest rate that is read
DESCRIPTION, TOKENS, WEIGHTS = "export.json", "tokens.txt", "weights.bin"
SHERPA_TOKENS = "sherpa_tokens.txt"
# Graphs by what they do. A model without gates has only the first one, at full depth.
MODEL, FULL, STOPPED = "model.onnx", "full.onnx", "stopped.onnx"


@dataclass(frozen=True)
class Description:
    """What is to be known about an exported model beside its graphs.

    Attributes:
        sizes: Bytes of each file.
        precision: float32 or int8.
        sample_rate: In Hz.
        frame: Samples of an encoder frame.
        shortest, longest: Samples of the shortest and the longest input.
        token_type: char, bpe or word, as in ESPnet.
        encoder: Name in ESPnet's configuration.
        num_layers: Of the encoder.
        gates: Layers after which gates decide, in the order of ``blank_threshold``.
        exit_layer: Layer at which ``stopped.onnx`` ends; None = there is none.
        settings: How the model skips, a whole record.
        frontend: Settings of the features, for people.
        versions: Of the packages and of ONNX that the export was made with.
        confidence_temperature: Of the words' confidences.
        format: See FORMAT.
    """

    sizes: dict[str, int]
    precision: str
    sample_rate: int
    frame: int
    shortest: int
    longest: int
    token_type: str
    encoder: str
    num_layers: int
    gates: list[int]
    exit_layer: int | None
    settings: SkipSettings
    frontend: dict[str, Any]
    versions: dict[str, str]
    confidence_temperature: float = 1.0
    format: int = FORMAT

    def save(self, folder: Path) -> None:
        """Write the file."""
        content = {**asdict(self), "settings": self.settings.to_json()}
        write_text(folder / DESCRIPTION, json.dumps(content, indent=1) + "\n")


def is_export(path: str | Path) -> bool:
    """Return whether this is the folder of an exported model, or is called like one."""
    path = Path(path)
    return (path / DESCRIPTION).is_file() or path.suffix == ".onnx"


def read_description(folder: Path) -> Description:
    """Read and check the description of an exported model.

    Raises:
        ValueError: If there is none, it is of another format, or a file is missing or cut off.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ValueError(
            f"{folder} is not an exported model: there is no {path}; make one with "
            "espnet-layerskip export"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, maker = content.get("format"), content.get("versions", {}).get("espnet_layerskip")
        if version == FORMAT:
            names = (field.name for field in fields(Description))
            known = {name: content[name] for name in names if name in content}
            settings = SkipSettings.from_json(known["settings"])
            found = Description(**{**known, "settings": settings.checked(known["gates"])})
            _check(found)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as e:
        raise ValueError(f"{path} is damaged ({e!r}): export the model again") from e
    if version != FORMAT:
        raise ValueError(
            f"{folder} has format {version}, and this version reads format {FORMAT}: export the "
            f"model again, or use the espnet_layerskip that made it: {maker or 'unknown'}"
        )
    for name, size in found.sizes.items():
        file = folder / name
        if not file.is_file():
            raise ValueError(f"{folder} has no {name}: copy the whole folder, or export it again")
        if file.stat().st_size != size:
            raise ValueError(
                f"{file} has {file.stat().st_size} bytes instead of {size}, it is cut off or of "
                "another export: copy the whole folder again"
            )
    return found


def _check(found: Description) -> None:
    """Raise ValueError for values that no export has: they choose memory, times and files."""
    check_temperature(found.confidence_temperature)
    gates = found.exit_layer is None or found.exit_layer in found.gates
    numbers = (found.sample_rate, found.frame, found.shortest, found.longest, found.num_layers)
    if not all(type(n) is int and 0 < n <= MOST_SAMPLES for n in numbers):
        raise ValueError(f"sample_rate, frame, shortest, longest, num_layers: {numbers}")
    how = found.settings
    whole = None not in (how.blank_threshold, how.spike_extension)
    if found.gates and not (whole and how.gates_in_use == tuple(found.gates)):
        raise ValueError(f"gates {found.gates!r}, settings {how.describe()!r}")
    if not gates or not all(type(k) is int and 0 < k <= found.num_layers for k in found.gates):
        raise ValueError(f"gates {found.gates!r}, exit_layer {found.exit_layer!r}")
    if found.token_type not in ("char", "bpe", "word"):
        raise ValueError(f"token_type {found.token_type!r}")
    if any(Path(name).name != name or type(size) is not int for name, size in found.sizes.items()):
        raise ValueError(f"sizes {found.sizes!r}")


def read_tokens(folder: Path) -> list[str]:
    """Return the tokens by id from lines ``token id``.

    Raises:
        ValueError: If a line is not of that form or out of order.
    """
    tokens = []
    for number, (_, line) in enumerate(read_lines(folder / TOKENS)):
        token, _, index = line.rpartition(" ")
        if index != str(number):
            raise ValueError(
                f"{folder / TOKENS}, line {number + 1}: 'TOKEN {number}' is needed, but got "
                f"{line!r}"
            )
        tokens.append(token)
    return tokens


def check_references(file: Path) -> None:
    """Raise ValueError if a graph refers to weights outside its folder.

    onnxruntime would read them from wherever the graph says.
    """
    try:
        places = set(_external_files(file.read_bytes()))
    except (IndexError, RecursionError) as e:
        raise ValueError(f"{file} is damaged: copy the whole folder again") from e
    for place in places:
        if place != WEIGHTS:
            raise ValueError(
                f"{file} refers to weights in {place!r}, but only {WEIGHTS} beside it is read: "
                "this is not a graph of espnet-layerskip export"
            )


# Fields of ONNX's messages on the way to a tensor's external data, and to tensors in subgraphs:
# ModelProto.graph and functions, GraphProto.node, initializer and sparse_initializer,
# NodeProto.attribute, AttributeProto.t, g, tensors, graphs and sparse_tensor(s),
# SparseTensorProto.values and indices, TensorProto.external_data
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _ENTRY = range(7)
_FIELDS = {
    _MODEL: {7: _GRAPH, 25: _GRAPH},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE, 7: _NODE},  # 7: the nodes of a function
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {13: _ENTRY},
}


def _external_files(data: bytes, kind: int = _MODEL) -> Iterator[str]:
    """Yield where the tensors of a message keep their values, if not in the message."""
    known, entry = _FIELDS.get(kind, {}), {}
    for number, value in _protobuf(data):
        if kind == _ENTRY:
            entry[number] = value.decode("utf-8", "replace")
        elif number in known:
            yield from _external_files(value, known[number])
    if entry.get(1) == "location":
        yield entry.get(2, "")


def _protobuf(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of the fields of a message that have a length."""
    view, place = memoryview(data), 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = view[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while place < len(view):
        key = varint()
        kind = key & 7
        if kind not in (0, 1, 2, 5) or key >> 32:  # a group; a number that others cut off
            raise IndexError("no field of ONNX")
        if kind == 0:
            varint()
            continue
        size = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        if place + size > len(view):
            raise IndexError("a field is longer than its message")
        if kind == 2:
            yield key >> 3, bytes(view[place : place + size])
        place += size
