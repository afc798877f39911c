"""How many operators the fast form calls: the same on every processor."""

import copy

import pytest
import torch

from tests.support.encoders import features, gated


def count_operators(run):
    """Return how many operators Python calls, views included."""
    with torch.inference_mode(), torch.autograd.profiler.profile() as profile:
        run()
    return sum(
        e.name.startswith(("aten::", "quantized::")) and e.cpu_parent is None
        for e in profile.function_events
    )


@pytest.mark.parametrize("context", ["packed", "full"])
@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        ("conformer", (44, 57)),
        ("transformer", (20, 28)),
        ("branchformer", (36, 50)),
        ("e_branchformer", (55, 70)),
    ],
)
def test_a_layer_is_few_operators(kind, ctc, context, limits):
    """At 3 s of speech the number of operators decides: it may not creep up."""
    _, plain = gated(kind, {}, context, ctc)
    fast = copy.deepcopy(plain)
    fast.optimize_for_inference()
    x, lens = features(1), torch.tensor([90])
    numbers = []
    for encoder in (plain, fast):
        encoder(x, lens, ctc=ctc)  # fills what is kept from call to call
        whole = count_operators(lambda e=encoder: e(x, lens, ctc=ctc))
        del encoder.encoders[-1]
        if encoder is fast:
            del encoder.fast_form().layers[-1]
        shorter = count_operators(lambda e=encoder: e(x, lens, ctc=ctc))
        numbers.append(whole - shorter)
    assert numbers[1] <= limits[context == "full"], numbers
    assert numbers[1] < 0.75 * numbers[0], numbers
