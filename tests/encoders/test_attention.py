"""What is seen of the attention from outside, and ESPnet's flash attention."""

import pytest
import torch

from espnet_layerskip._compat import MultiHeadedAttention
from espnet_layerskip.encoders import attention
from espnet_layerskip.encoders.conformer import LayerSkipConformerEncoder
from espnet_layerskip.method.ctc import LayerSkipCTC
from espnet_layerskip.method.settings import OFF, SkipSettings

CONF = {
    "input_size": 20,
    "output_size": 16,
    "attention_heads": 2,
    "linear_units": 32,
    "num_blocks": 2,
    "rel_pos_type": "latest",
    "cnn_module_kernel": 5,
    "gate_layer_idx": [1],
    "spike_extension": [0, 0],
    "min_spike_ratio": 0.0,
}


@pytest.mark.numerics
@pytest.mark.parametrize("context", ["packed", "packed_original", "full"])
def test_attention_weights_are_shown_at_the_place_of_their_frames(context):
    torch.manual_seed(0)
    encoder = LayerSkipConformerEncoder(**CONF).eval()
    ctc = LayerSkipCTC(odim=5, encoder_output_size=16).eval()
    seen = []

    def watch(module, inputs, output):  # as ESPnet's calculate_all_attentions
        seen.append(module.attn)

    layer = encoder.encoders[1].self_attn
    layer.register_forward_hook(watch)
    x, lens = torch.randn(1, 120, 20), torch.tensor([120])
    with torch.no_grad():
        encoder.run(x, lens, ctc, OFF)
        prob = encoder.run(x, lens, ctc, SkipSettings(blank_threshold=0.999)).trace
        threshold = float(prob.gates[0].blank_prob.median())
        how = SkipSettings(blank_threshold=threshold, skip_context=context)
        keep = encoder.run(x, lens, ctc, how).trace.gates[0].keep_mask[0]
    full, shown = seen[0], seen[-1]
    assert 0 < keep.sum() < len(keep)
    assert shown.shape == full.shape
    assert not shown[:, :, ~keep].any()
    torch.testing.assert_close(shown[0, :, keep].sum(-1), torch.ones(2, int(keep.sum())))
    if context == "full":  # the keys are those of full depth
        torch.testing.assert_close(shown[:, :, keep], full[:, :, keep])
        return
    assert not shown[:, :, :, ~keep].any()
    if context == "packed_original":
        among_kept = full * keep
        among_kept = among_kept / among_kept.sum(-1, keepdim=True)
        torch.testing.assert_close(shown[:, :, keep], among_kept[:, :, keep])
    assert not hasattr(layer, "attn") or layer.attn is None  # nothing stays on the module


def test_a_module_for_flash_attention_drops_out_as_another():
    """ESPnet gives it no dropout of its own; ours never runs the kernel."""
    flash = MultiHeadedAttention(2, 8, 0.5, use_flash_attn=True).train()
    plain = MultiHeadedAttention(2, 8, 0.5).train()
    plain.load_state_dict(flash.state_dict())
    x, outs = torch.randn(1, 9, 8), []
    for module in (flash, plain):
        torch.manual_seed(1)
        outs.append(attention.own_copy(module)(x, x, x, None))
    torch.testing.assert_close(*outs)
    assert isinstance(flash.dropout, torch.nn.Identity)
    calm = attention.own_copy(flash.eval())
    torch.testing.assert_close(calm(x, x, x, None), calm(x, x, x, None))
