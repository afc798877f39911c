"""The comparisons fail where they should."""

import numpy as np
import pytest
import torch

from tests.support.numerics import RTOL, assert_all_same, assert_same, relative_error


@pytest.mark.parametrize(("dtype", "rtol"), RTOL.items())
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_the_error_is_a_share_of_the_largest_magnitude(dtype, rtol, size):
    expected = size * torch.tensor([[0.0, 0.5], [-1.0, 1e-3]], dtype=dtype)
    for place in ((0, 0), (1, 0)):
        change = torch.zeros_like(expected)
        change[place] = size * rtol
        assert_same(expected + 0.5 * change, expected)
        with pytest.raises(AssertionError, match="out: "):
            assert_same(expected + 2.0 * change, expected, name="out")
        assert relative_error(expected + 2.0 * change, expected) == pytest.approx(2 * rtol, 0.1)


@pytest.mark.parametrize(
    "actual", [torch.ones(3), torch.ones(2, 1), torch.ones(2).double(), torch.tensor([1, np.nan])]
)
def test_shape_dtype_and_nan_count(actual):
    with pytest.raises(AssertionError):
        assert_same(actual, torch.ones(2))


def test_infinities_and_zeros_are_met_exactly():
    for values in (torch.tensor([-torch.inf, -2.0]), torch.zeros(2), torch.zeros(0)):
        assert_same(values, values)
    with pytest.raises(AssertionError):
        assert_same(torch.tensor([-1e30, -2.0]), torch.tensor([-torch.inf, -2.0]))
    with pytest.raises(AssertionError):
        assert_same(np.full(2, 1e-30), np.zeros(2))
    assert_same(np.full(2, 1e-13), np.zeros(2), scale=1.0)


def test_gradients_have_one_scale():
    expected = {"weight": torch.tensor([4.0]), "bias": torch.tensor([0.0])}
    assert_all_same({**expected, "bias": torch.tensor([4e-6])}, expected)
    with pytest.raises(AssertionError, match="bias: "):
        assert_all_same({**expected, "bias": torch.tensor([1e-4])}, expected)
    with pytest.raises(AssertionError):
        assert_all_same({"weight": expected["weight"]}, expected)
    with pytest.raises(AssertionError, match="nothing but zeros"):
        assert_all_same({"bias": expected["bias"]}, {"bias": expected["bias"]})
