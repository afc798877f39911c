"""Small models, random weights: what is tested here holds for any weights."""

import pytest
import torch

from espnet_layerskip._compat import ConformerEncoder
from espnet_layerskip.encoders.conformer import LayerSkipConformerEncoder
from espnet_layerskip.method.ctc import LayerSkipCTC

CONF = {
    "input_size": 20,
    "output_size": 16,
    "attention_heads": 2,
    "linear_units": 24,
    "num_blocks": 4,
    "macaron_style": True,
    "rel_pos_type": "latest",
    "cnn_module_kernel": 5,
}


@pytest.fixture
def make_encoder():
    """Build (stock, ours) with the same weights, in evaluation mode."""

    def make(skip=None, **changes):
        torch.manual_seed(0)
        conf = {**CONF, **changes}
        stock = ConformerEncoder(**conf)
        with torch.no_grad():  # statistics that a trained BatchNorm could have
            for name, buffer in stock.named_buffers():
                if "running" in name:
                    buffer.uniform_(0.5, 1.5)
        ours = LayerSkipConformerEncoder(**conf, **(skip or {}))
        ours.load_state_dict(stock.state_dict())
        return stock.eval(), ours.eval()

    return make


@pytest.fixture
def ctc():
    torch.manual_seed(3)
    head = LayerSkipCTC(9, CONF["output_size"]).eval()
    with torch.no_grad():  # about half of the frames blank
        head.ctc_lo.weight.mul_(3.0)
        head.ctc_lo.bias[0] = -1.2
    return head
