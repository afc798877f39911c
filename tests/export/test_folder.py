"""What is checked before a graph is opened."""

import json
import shutil
import sys

import onnx
import pytest

from espnet_layerskip.export import Speech2Text
from espnet_layerskip.export.folder import (
    DESCRIPTION,
    MODEL,
    check_references,
    is_export,
    read_description,
    read_tokens,
)
from espnet_layerskip.export.session import execution_provider, open_session
from tests.support.recognizers import TOKENS


@pytest.fixture
def copy(exported, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(exported, tmp_path / "copy")


def test_what_is_in_a_folder(exported):
    found = read_description(exported)
    assert set(found.sizes) == {
        *("model.onnx", "full.onnx", "stopped.onnx", "weights.bin", "tokens.txt"),
        "sherpa_tokens.txt",
    }
    assert (found.sample_rate, found.frame, found.num_layers) == (16000, 512, 3)
    assert (found.gates, found.exit_layer, found.precision) == ([1, 2], 1, "float32")
    assert read_tokens(exported) == TOKENS
    sherpa = (exported / "sherpa_tokens.txt").read_text().splitlines()
    assert sherpa[:4] == ["<blank> 0", "<unk> 1", "\u2581 2", "A 3"]
    assert is_export(exported)
    assert not is_export(exported.parent)


def test_other_folders(tmp_path):
    with pytest.raises(ValueError, match=r"is not an exported model.*espnet-layerskip export"):
        read_description(tmp_path)


def test_another_format(copy):
    content = json.loads((copy / DESCRIPTION).read_text())
    (copy / DESCRIPTION).write_text(json.dumps({**content, "format": 7}))
    with pytest.raises(ValueError, match=r"has format 7, and this version reads format 1.*made it"):
        read_description(copy)
    (copy / DESCRIPTION).write_text(json.dumps(content)[:-40])
    with pytest.raises(ValueError, match=r"export.json is damaged"):
        read_description(copy)


WHOLE = {"blank_threshold": 0.9, "spike_extension": [1, 1], "gates_in_use": [1, 2]}


@pytest.mark.parametrize(
    "entry",
    [
        {"sample_rate": 0},
        {"frame": 0},
        {"longest": 10**12},
        {"shortest": "1"},
        {"gates": [99]},
        {"gates": "all"},
        {"gates": [1, 2, 3], "settings": {**WHOLE, "gates_in_use": [1, 2]}},
        {"settings": {**WHOLE, "spike_extension": None}},
        {"exit_layer": 3},
        {"token_type": "phn"},
        {"sizes": {"../../etc/passwd": 1}},
        {"sizes": ["model.onnx"]},
        {"settings": {"blank_threshold": float("nan")}},
        {"settings": {"spike_extension": [0, 10**30]}},
    ],
    ids=str,
)
def test_absurd_descriptions_are_refused(copy, entry):
    content = json.loads((copy / DESCRIPTION).read_text())
    (copy / DESCRIPTION).write_text(json.dumps(content | entry))
    with pytest.raises(ValueError, match=r"export.json is damaged"):
        read_description(copy)
    (copy / DESCRIPTION).write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"export.json is damaged"):
        read_description(copy)


@pytest.mark.parametrize("name", ["model.onnx", "weights.bin"])
def test_files_that_are_cut_off_or_missing(copy, name):
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=rf"{name} has {len(whole) - 1} bytes instead of"):
        read_description(copy)
    (copy / name).unlink()
    with pytest.raises(ValueError, match=f"has no {name}: copy the whole folder"):
        read_description(copy)


def test_a_graph_that_cannot_be_read(copy):
    content = (copy / MODEL).read_bytes()
    (copy / MODEL).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"model.onnx is damaged: copy the whole folder"):
        open_session(copy / MODEL)


def test_tokens_out_of_order(copy):
    (copy / "tokens.txt").write_text("<blank> 0\n<space> 2\n")
    with pytest.raises(ValueError, match=r"line 2: 'TOKEN 1' is needed, but got '<space> 2'"):
        read_tokens(copy)


@pytest.mark.parametrize("number", [1, len(TOKENS) - 1, len(TOKENS) + 1])
def test_other_tokens_than_the_graph_has(copy, number):
    text = "".join(f"{token} {i}\n" for i, token in enumerate([*TOKENS, "Z"][:number]))
    (copy / "tokens.txt").write_text(text)
    content = json.loads((copy / DESCRIPTION).read_text())
    content["sizes"]["tokens.txt"] = len(text.encode())
    (copy / DESCRIPTION).write_text(json.dumps(content))
    message = f"tokens.txt has {number} tokens, but model.onnx has {len(TOKENS)} outputs"
    with pytest.raises(ValueError, match=message):
        Speech2Text(copy)


@pytest.mark.parametrize(
    "odd",
    [b"\xc3\x3e", b"\xc4\x3e", b"\xc6\x3e", b"\xba\x80\x80\x80\x10\0", b"\x09"],
    ids=["group", "its end", "no type", "a number of 33 bits", "too short"],
)
def test_what_others_would_read_in_another_way_is_refused(copy, odd):
    """A field that is skipped wrongly would hide others from the look for weights elsewhere."""
    content = (copy / MODEL).read_bytes()
    (copy / MODEL).write_bytes(content + odd)
    with pytest.raises(ValueError, match=r"model.onnx is damaged"):
        check_references(copy / MODEL)


@pytest.mark.parametrize("place", ["../weights.bin", "/etc/passwd", "other.bin", ""])
def test_weights_elsewhere_are_refused(copy, place):
    """In the graph, and in a loop inside the graph."""
    model = onnx.load(str(copy / MODEL), load_external_data=False)
    check_references(copy / MODEL)
    loop = next(node for node in model.graph.node if node.op_type == "Loop")
    body = next(a.g for a in loop.attribute if a.name == "body")
    outside = next(t for t in model.graph.initializer if t.external_data)
    body.initializer.add().CopyFrom(outside)
    for tensor in (body.initializer[0], outside):
        before = tensor.SerializeToString()
        next(e for e in tensor.external_data if e.key == "location").value = place
        (copy / MODEL).write_bytes(model.SerializeToString())
        with pytest.raises(ValueError, match=f"refers to weights in '{place}'"):
            open_session(copy / MODEL)
        tensor.ParseFromString(before)
    (copy / MODEL).write_bytes(model.SerializeToString())
    check_references(copy / MODEL)


def test_providers():
    assert execution_provider("cpu") == ("CPUExecutionProvider", {})
    with pytest.raises(ValueError, match="device must be cpu, cuda or cuda:N, but got 'tpu'"):
        execution_provider("tpu")


def test_a_provider_that_is_not_there(monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ValueError, match=r"only CPUExecutionProvider: pip install onnxruntime-gpu"):
        execution_provider("cuda:1")


def test_packages_that_are_not_installed(exported, monkeypatch):
    from espnet_layerskip.export.graph import Graph

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"needs onnxruntime: pip install .*\[onnx\]"):
        open_session(exported / MODEL)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"needs the package onnx: pip install .*\[onnx\]"):
        Graph()
