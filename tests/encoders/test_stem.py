import pytest
import torch

from espnet_layerskip.encoders.conformer import LayerSkipConformerEncoder
from tests.support.encoders import CONF
from tests.support.numerics import assert_same

pytestmark = pytest.mark.numerics


def test_a_narrow_stem(make_encoder):
    stock, ours = make_encoder()
    narrow = LayerSkipConformerEncoder(**CONF, stem_channels=4).eval()
    assert list(narrow.state_dict()) == list(stock.state_dict())
    differ = {
        name
        for name, value in narrow.state_dict().items()
        if value.shape != ours.state_dict()[name].shape
    }
    assert {name.split(".")[1] for name in differ} == {"conv", "out"}
    x, lens = torch.randn(2, 90, 20), torch.tensor([90, 62])
    expected, olens, _ = narrow(x, lens)
    assert torch.equal(olens, ours(x, lens)[1])
    narrow.optimize_for_inference()
    valid = torch.arange(21) < olens[:, None]
    assert_same(narrow(x, lens)[0][valid], expected[valid])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem_channels": 4, "input_layer": "conv2d2"}, "needs input_layer: conv2d.*got 4 for"),
        ({"stem_channels": -1}, "must be 0 or more.*got -1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        LayerSkipConformerEncoder(**{**CONF, **options})
