"""The graphs give what the encoder gives: the same frames, the same numbers, in every context."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from espnet_layerskip.export.model import Exporter, check_exportable
from espnet_layerskip.method.ctc import LayerSkipCTC
from tests.export.conftest import model_of, outputs, session_of
from tests.support.encoders import CONF, CONTEXTS, features, gated

pytestmark = pytest.mark.numerics

KINDS = [  # the Conformer as it usually is: test_utterances_that_keep_no_frame
    ("conformer", {"macaron_style": False, "use_cnn_module": False}),
    ("transformer", {}),
    ("e_branchformer", {"merge_conv_kernel": 7, "use_linear_after_conv": True}),
    ("e_branchformer", {"macaron_ffn": False, "gate_activation": "swish"}),
]
LENS = torch.tensor([90, 62, 35])


def parity(encoder, ctc, settings, **graph):
    """Largest difference to the encoder, of utterances alone and in a batch; and the depths."""
    model = model_of(encoder, ctc)
    exporter = Exporter(model, encoder.settings, longest=64)
    session = session_of(exporter.graph(from_features=True, **graph))
    x = features(3)
    together, worst, depths = outputs(session, x, LENS), 0.0, []
    for i, n in enumerate(LENS.tolist()):
        with torch.inference_mode():
            encoded = encoder.run(x[i : i + 1, :n], LENS[i : i + 1], ctc, settings)
            expected = encoded.log_softmax(ctc)[0].numpy()
        alone = outputs(session, x[i : i + 1, :n], LENS[i : i + 1])
        frames = len(expected)
        assert alone["lengths"].tolist() == [frames] == together["lengths"][i : i + 1].tolist()
        for found in (alone["log_probs"][0], together["log_probs"][i, :frames]):
            worst = max(worst, float(np.abs(found - expected).max()))
        if "depth" in alone:
            depth = encoded.depth(len(encoder.encoders))[0].tolist()
            assert alone["depth"][0].tolist() == depth
            assert together["depth"][i].tolist() == depth + [0] * (21 - frames)
            depths += depth
    return worst, depths


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_gates(kind, options, context, ctc):
    _, ours = gated(kind, options, context, ctc)
    worst, depths = parity(ours, ctc, None, gates=[2])
    assert worst < 1e-4
    assert 0.1 < np.mean(np.array(depths) == 2) < 0.9


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("kind", ["conformer", "e_branchformer"])
def test_cascade(kind, context, ctc):
    _, ours = gated(kind, {}, context, ctc, gate_layer_idx=[1, 3], spike_extension=[1, 0])
    worst, depths = parity(ours, ctc, None, gates=[1, 3])
    assert worst < 1e-4
    assert {1, 4} <= set(depths)


@pytest.mark.parametrize("kind", ["conformer", "transformer", "e_branchformer"])
def test_full_depth_and_early_exit(kind, ctc):
    _, ours = gated(kind, {}, "full", ctc)
    full, _ = parity(ours, ctc, replace(ours.settings, blank_threshold=1.0))
    stopped, _ = parity(ours, ctc, replace(ours.settings, exit_layer=2), stop=2)
    other, _ = parity(ours, ctc, replace(ours.settings, blank_threshold=1.0), stop=2)
    assert max(full, stopped) < 1e-4 < other


@pytest.mark.parametrize("context", CONTEXTS)
def test_utterances_that_keep_no_frame(context, ctc):
    """Of three utterances the first one keeps no frame, and alone nothing is left to run."""
    _, ours = gated("conformer", {}, context, ctc)
    x = features(3)
    with torch.inference_mode():
        probs = ours.run(x, LENS, ctc).trace.blank_prob()
    lowest = [float(p[:n].min()) for p, n in zip(probs, [21, 14, 8], strict=True)]
    ours.blank_threshold = (sorted(lowest)[-1] + sorted(lowest)[-2]) / 2
    worst, depths = parity(ours, ctc, None, gates=[2])
    assert worst < 1e-4
    assert 4 in depths
    ours.min_spike_ratio = 0.5  # now they run at full depth
    assert parity(ours, ctc, None, gates=[2])[1].count(4) > depths.count(4)


@pytest.mark.parametrize("own", [False, True])
def test_plain_heads(own, ctc):
    _, ours = gated("conformer", {}, "full", ctc)
    head = LayerSkipCTC(9, CONF["output_size"], head_type="plain", own_head_layers=[2] * own).eval()
    with torch.no_grad():
        for projection in (head.ctc_lo, *head.interctc_lo.values()):
            projection.weight.mul_(3.0)
            projection.bias[0] = 1.0
    ours.blank_threshold = 0.3
    worst, depths = parity(ours, head, None, gates=[2])
    assert worst < 1e-4
    assert {2, 4} == set(depths)


def test_lengths_may_be_left_out(ctc):
    """As clients with one input do."""
    _, ours = gated("conformer", {}, "full", ctc)
    session = session_of(Exporter(model_of(ours, ctc), ours.settings, 64).graph([2], None, True))
    assert [i.name for i in session.get_inputs()] == ["features"]
    x = features(2).numpy()
    found = session.run(None, {"features": x})
    expected = outputs(session, x, [90, 90])
    given = session.run(None, {"features": x, "feature_lengths": np.array([90, 90])})
    for a, b, c in zip(found, given, expected.values(), strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)


def test_settings_are_inputs(ctc):
    _, ours = gated("conformer", {}, "full", ctc)
    session = session_of(Exporter(model_of(ours, ctc), ours.settings, 64).graph([2], None, True))
    x, lens = features(3).numpy(), LENS.numpy()
    feeds = {"features": x, "feature_lengths": lens}
    for threshold, extension, least in ((0.2, (0, 0), 0), (0.45, (2, 0), 6), (0.45, (0, 3), 0)):
        how = replace(
            ours.settings,
            blank_threshold=threshold,
            spike_extension=extension,
            min_skipped_frames=least,
        )
        feeds["min_skipped_frames"] = np.array(least)
        feeds["blank_threshold"] = np.array([threshold], np.float32)
        feeds["spike_extension"] = np.array(extension)
        depth = session.run(["depth"], feeds)[0]
        with torch.inference_mode():
            expected = ours.run(features(3), LENS, ctc, how).depth(4).numpy()
        assert np.array_equal(depth, expected)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "conformer",
            {"activation_type": "hardtanh"},
            "layers 1, 2, 3, 4: the activation Hardtanh",
        ),
        ("conformer", {"normalize_before": False}, "layers 1, 2, 3, 4: normalize_before: false"),
        ("conformer", {"input_layer": "linear"}, "input layer is Sequential"),
        ("transformer", {"qk_norm": True}, "layers 1, 2, 3, 4: qk_norm: true"),
        ("branchformer", {}, "the encoder is LayerSkipBranchformerEncoder; conformer, e_branch"),
    ],
)
def test_what_cannot_be_exported(kind, options, message, ctc):
    _, ours = gated(kind, options, "packed")
    with pytest.raises(ValueError, match=message):
        check_exportable(model_of(ours, ctc), ours.settings)


def test_repeats_and_frontends_cannot_be_exported(ctc):
    _, ours = gated("conformer", {}, "packed")
    how = replace(ours.settings, repeat_threshold=0.5)
    with pytest.raises(ValueError, match=r"frontend is SimpleNamespace.*repeats"):
        check_exportable(model_of(ours, ctc), how)
