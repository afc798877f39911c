"""Exports of small models with random weights, made once."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason="needs onnx (extra onnx)")
pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra onnx)")

from espnet_layerskip.export.write import export_model
from espnet_layerskip.inference.speech2text import load_model
from tests.support.encoders import CONF


@pytest.fixture(autouse=True)
def _denormals():
    """Put back how this thread computes: ``transcribe`` lets onnxruntime flush denormals."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def eager(models):
    """Our Speech2Text of the model with gates, that of the exports."""
    return load_model(models["skip"], decoder_type="greedy", confidence_temperature=2.0)


@pytest.fixture(scope="session")
def exported(eager, tmp_path_factory):
    """The folder of the model with gates, exported."""
    folder = tmp_path_factory.mktemp("exports") / "skip.onnx"
    export_model(eager, folder, longest=4.0)
    return folder


def model_of(encoder, ctc, normalize=None, frontend=None):
    """What the exporter reads of an ESPnet model, around an encoder of features."""
    frontend = frontend or SimpleNamespace(output_size=lambda: CONF["input_size"])
    return SimpleNamespace(
        encoder=encoder,
        ctc=ctc,
        token_list=[str(i) for i in range(ctc.ctc_lo.out_features)],
        frontend=frontend,
        normalize=normalize,
        preencoder=None,
        postencoder=None,
    )


def session_of(graph):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    content = graph.model({}).SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def outputs(session, x, lens):
    """Outputs by name of a batch."""
    optional = [i.name for i in session.get_overridable_initializers() if "lengths" in i.name]
    names = [i.name for i in session.get_inputs()] + optional
    values = (np.asarray(torch.as_tensor(x)), np.asarray(torch.as_tensor(lens)))
    found = session.run(None, dict(zip(names, values, strict=False)))
    return dict(zip([o.name for o in session.get_outputs()], found, strict=True))
