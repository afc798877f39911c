"""OWSM-CTC's encoder, small: with a prefix, a prompt that its layers read, and conditioning."""

import inspect

import torch

from espnet_layerskip._compat import CTC
from espnet_layerskip.encoders import ENCODERS
from espnet_layerskip.encoders.e_branchformer_ctc import Prompt

OURS = ENCODERS["layerskip_e_branchformer_ctc"]
CONF = {
    "input_size": 40,
    "output_size": 16,
    "attention_heads": 2,
    "num_blocks": 5,
    "cgmlp_linear_units": 24,
    "cgmlp_conv_kernel": 5,
    "merge_conv_kernel": 5,
    "use_ffn": True,
    "macaron_ffn": True,
    "linear_units": 24,
    "attention_layer_type": "selfattn",
    "pos_enc_layer_type": "abs_pos",
    "use_cross_attention": [False, True, False, True, True],
    "interctc_layer_idx": [2, 4],
    "interctc_use_conditioning": True,
}
RELATIVE = {"attention_layer_type": "rel_selfattn", "pos_enc_layer_type": "rel_pos"}
FORMS = [{}, RELATIVE, {"use_ffn": False, "macaron_ffn": False}, {"use_cross_attention": False}]
# ESPnet 202511 has no prefix behind conv2d, and no masks of padding in its convolutions
NEW = "use_sdpa" in inspect.signature(OURS.STOCK).parameters


def head():
    torch.manual_seed(3)
    ctc = CTC(9, 16).eval()
    with torch.no_grad():
        ctc.ctc_lo.weight.mul_(3.0)
    return ctc


def build(skip=None, **changes):
    """Return (stock, ours) with the same weights, in evaluation mode."""
    torch.manual_seed(0)
    conf = {**CONF, **changes}
    stock, ours = OURS.STOCK(**conf), OURS(**conf, **(skip or {}))
    with torch.no_grad():
        for name, parameter in stock.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5).sub_(0.7 if name.endswith("bias") else 0.0)
    ours.load_state_dict(stock.state_dict())
    if conf["interctc_use_conditioning"]:
        stock.conditioning_layer = torch.nn.Linear(9, 16)
        ours.conditioning_layer = stock.conditioning_layer
    return stock.eval(), ours.eval()


def prompt(batch=3, length=5):
    """Return a prompt whose utterances have memories of different length."""
    torch.manual_seed(1)
    counts = torch.tensor([length, max(1, length - 2), 1])[:batch, None]
    mask = (torch.arange(length) < counts)[:, None]
    return Prompt(torch.randn(batch, 2, 16), torch.randn(batch, length, 16), mask)
