import pytest
import torch
import torch.nn.functional as F

from espnet_layerskip._compat import ConformerEncoder
from espnet_layerskip.encoders.conformer import LayerSkipConformerEncoder
from espnet_layerskip.evaluation.flops import counted
from espnet_layerskip.method.ctc import LayerSkipCTC
from espnet_layerskip.method.settings import SkipSettings

D, FF, HEADS, KERNEL, LAYERS, MELS = 16, 32, 2, 5, 2, 20


def count_flops(run):
    return counted(run)[1]


def conformer(**kwargs):
    torch.manual_seed(0)
    return ConformerEncoder(
        MELS,
        output_size=D,
        attention_heads=HEADS,
        linear_units=FF,
        num_blocks=LAYERS,
        macaron_style=True,
        rel_pos_type="latest",
        cnn_module_kernel=KERNEL,
        **kwargs,
    ).eval()


def subsampled(n):
    return ((n - 1) // 2 - 1) // 2


def stem_macs(frames):
    t1, f1, t2, f2 = (frames - 1) // 2, (MELS - 1) // 2, subsampled(frames), subsampled(MELS)
    return t1 * f1 * D * 9 + t2 * f2 * D * D * 9 + t2 * f2 * D * D


def layer_macs(t):
    """Multiply-accumulates of one Conformer layer with relative positions on t frames."""
    feed_forward = 2 * t * D * FF
    attention = 4 * t * D * D + (2 * t - 1) * D * D  # q, k, v, out and linear_pos
    scores = t * t * D + t * (2 * t - 1) * D + t * t * D  # content, position, values
    convolution = t * D * 2 * D + t * D * KERNEL + t * D * D
    return 2 * feed_forward + attention + scores + convolution


def hand_count(frames):
    return 2 * (stem_macs(frames) + LAYERS * layer_macs(subsampled(frames)))


@pytest.mark.parametrize("frames", [41, 80])
def test_conformer_equals_the_hand_count(frames):
    encoder = conformer()
    x = torch.randn(1, frames, MELS)
    assert count_flops(lambda: encoder(x, torch.tensor([frames]))) == hand_count(frames)


def test_inference_mode_changes_nothing():
    encoder = conformer()
    x, lens = torch.randn(1, 41, MELS), torch.tensor([41])
    with torch.inference_mode():
        assert count_flops(lambda: encoder(x, lens)) == hand_count(41)


def test_linear_in_three_precisions():
    linear = torch.nn.Linear(6, 4)
    x = torch.randn(2, 5, 6)
    expected = 2 * 2 * 5 * 6 * 4
    int8 = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(linear), {torch.nn.Linear})
    assert count_flops(lambda: linear(x)) == expected
    assert count_flops(lambda: int8(x)) == expected
    assert count_flops(lambda: linear.bfloat16()(x.bfloat16())) == expected


@pytest.mark.parametrize("masked", [False, True])
def test_fused_attention_is_counted_on_cpu(masked):
    q, k = torch.randn(1, 2, 7, 8), torch.randn(1, 2, 9, 8)
    mask = torch.zeros(1, 2, 7, 9) if masked else None
    expected = 2 * 2 * (2 * 7 * 9 * 8)
    assert count_flops(lambda: F.scaled_dot_product_attention(q, k, k, mask)) == expected


def test_only_what_runs_is_counted():
    linear = torch.nn.Linear(3, 3, bias=False)
    x = torch.randn(10, 3)
    keep = torch.arange(10) < 4
    assert count_flops(lambda: linear(x[keep])) == 4 * 18
    assert count_flops(lambda: None) == 0


def test_skipping_is_counted_as_it_runs():
    """K layers and the gate's one logit on all frames, L - K layers on the kept ones."""
    torch.manual_seed(0)
    encoder = LayerSkipConformerEncoder(
        MELS,
        output_size=D,
        attention_heads=HEADS,
        linear_units=FF,
        num_blocks=LAYERS,
        macaron_style=True,
        rel_pos_type="latest",
        cnn_module_kernel=KERNEL,
        gate_layer_idx=[1],
        blank_threshold=0.5,
        spike_extension=[0, 0],
        skip_context="packed",
    ).eval()
    ctc = LayerSkipCTC(5, D)
    x, frames = torch.randn(1, 80, MELS), 80
    lens = torch.tensor([frames])
    with torch.no_grad():
        below = encoder.run(x, lens, ctc, SkipSettings(exit_layer=1))
        ctc.ctc_lo.bias[0] -= ctc.ctc_lo(below.out)[0, :, 0].median()
    encoded, flops = counted(lambda: encoder.run(x, lens, ctc))
    t, kept = subsampled(frames), int(encoded.keep_mask.sum())
    assert 0 < kept < t
    macs = stem_macs(frames) + layer_macs(t) + t * D + (LAYERS - 1) * layer_macs(kept)
    assert flops == 2 * macs


def test_what_ran_is_returned_and_other_work_is_not_counted():
    linear = torch.nn.Linear(3, 3, bias=False)
    x = torch.randn(10, 3)
    out, flops = counted(lambda: linear(x))
    assert torch.equal(out, linear(x))
    assert flops == 180
    with pytest.raises(RuntimeError):
        count_flops(lambda: linear(x[:, :2]))
    assert count_flops(lambda: linear(x)) == 180  # a failure leaves nothing behind
