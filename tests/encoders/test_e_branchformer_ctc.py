"""OWSM-CTC's encoder: off is stock, skipping is what masks do, alone is batched, prefixes stay."""

import pytest
import torch

from espnet_layerskip.encoders.convert import from_stock, make_stock, to_stock
from espnet_layerskip.encoders.e_branchformer_ctc import Prompt
from espnet_layerskip.method.gate import BlankGate
from espnet_layerskip.method.settings import SkipSettings
from tests.support.encoders import CONTEXTS, NO_DROPOUT, features
from tests.support.numerics import assert_all_same, assert_same, relative_error
from tests.support.owsm_encoder import FORMS, NEW, OURS, RELATIVE, build, head, prompt

pytestmark = pytest.mark.numerics


def arguments(given):
    return {k: v for k, v in vars(given).items() if v is not None}


def gated(context, ctc, given, x, lens, gates=(1, 3), **changes):
    """Build (stock, ours) of which about half of the frames are blank at each gate."""
    skip = {"spike_extension": [0, 0], "skip_context": context, "min_spike_ratio": 0.0}
    stock, ours = build({"gate_layer_idx": list(gates), **skip}, **changes)
    full = ours.run(x, lens, ctc, skip=False, intermediates=True, prompt=given)
    valid = full.depth(5) > 0
    states = dict(full.intermediates)
    found = (ctc.softmax(states[k])[..., 0][valid].detach().sort().values for k in gates)
    ours.blank_threshold = [float(p[len(p) // 2 - 1 :][:2].mean()) for p in found]
    return stock, ours


@pytest.mark.parametrize("input_layer", ["conv2d8", "conv2d", "conv2d6", "conv1d2", "linear"])
@pytest.mark.parametrize("max_layer", [None, 1, 2, 4])
def test_off_is_the_stock_encoder(input_layer, max_layer):
    if not NEW and input_layer in ("conv2d", "conv2d6", "conv1d2"):
        pytest.skip("ESPnet 202511 has no prefix behind this input layer (TypeError)")
    stock, ours = build({"gate_layer_idx": [3], "blank_threshold": 1.0}, input_layer=input_layer)
    assert list(ours.state_dict()) == list(stock.state_dict())
    x, ctc = features(3, 120, 40), head()
    lens = torch.tensor([120, 90, 71] if NEW else [120, 120, 120])
    given = {"ctc": ctc, "max_layer": max_layer, **arguments(prompt())}
    (expected, inter), expected_lens, _ = stock(x, lens, **given)
    (out, found), out_lens, _ = ours(x, lens, **given)
    assert torch.equal(out_lens, expected_lens)
    valid = torch.arange(out.size(1)) < out_lens[:, None]
    assert_same(out[valid], expected[valid], rtol=1e-6)
    assert [k for k, _ in found] == [k for k, _ in inter]
    for (_, h), (_, one) in zip(found, inter, strict=True):
        assert_same(h[valid], one[valid], rtol=1e-6)


def test_without_intermediate_heads_and_prompts_the_answer_is_the_stock_one():
    stock, ours = build({"gate_layer_idx": [2]}, interctc_layer_idx=[], input_layer="conv2d8")
    x, lens = features(2, 120, 40), torch.tensor([120, 120])
    out, _, rest = ours(x, lens, ctc=None, max_layer=0)
    assert rest is None
    assert_same(out, stock(x, lens, max_layer=0)[0], rtol=1e-6)


def test_a_prefix_goes_in_front_behind_every_subsampling():
    """Also where ESPnet 202511 cannot: the positions of the frames are moved by it."""
    _, ours = build(input_layer="conv2d", interctc_use_conditioning=False)
    x, lens, given = features(2, 90, 40), torch.tensor([90, 90]), prompt(2)
    (out, _), olens, _ = ours(x, lens, **arguments(given))
    plain = ours.run(x, lens)
    assert olens.tolist() == [23, 23]
    assert out.size(1) == 23 == plain.out.size(1) + 2
    assert ours.run(x, lens, prompt=given).out.shape == plain.out.shape
    h, _, _ = ours.subsample(x, lens)
    assert h.size(1) == 21


def test_off_is_the_stock_encoder_in_training_with_gradients():
    stock, ours = build({"gate_layer_idx": [3]}, **NO_DROPOUT)
    x, lens, ctc = features(3, 120, 40).double(), torch.tensor([120] * 3), head().double()
    given = {k: v.double() if v.is_floating_point() else v for k, v in arguments(prompt()).items()}
    grads = []
    for encoder in (stock, ours):
        encoder.zero_grad()
        (out, inter), _, _ = encoder.double().train()(x, lens, ctc=ctc, **given)
        assert [k for k, _ in inter] == [2, 4]
        total = sum((h * features(3, out.size(1), 16, seed=5)).sum() for _, h in [(0, out), *inter])
        total.backward()
        grads.append({name: p.grad.clone() for name, p in encoder.named_parameters()})
    assert_all_same(grads[1], grads[0])


def test_alone_equals_batched_can_fail():
    """Negative control: without the mask of the prompts the same comparison fails."""
    x, lens, ctc, given = features(3, 140, 40), torch.tensor([140, 101, 77]), head(), prompt()
    _, ours = gated("packed", ctc, given, x, lens)
    batch = ours.run(x, lens, ctc, prompt=Prompt(given.prefix_embeds, given.memory))
    alone = ours.run(x[2:, :77], lens[2:], ctc, prompt=given.row(2))
    assert relative_error(batch.out[2, : alone.out.size(1)], alone.out[0]) > 1e-3


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize(
    ("form", "context"), [(FORMS[0], "packed_original"), (FORMS[1], "full"), (FORMS[3], "packed")]
)
def test_the_fast_form_is_cut_and_loaded_as_the_plain_one(form, context, length):
    x, lens, ctc = features(3, 140, 40), torch.tensor([140, 101, 77]), head()
    given = prompt(3, length)
    _, ours = gated(context, ctc, given, x, lens, **form)
    with torch.no_grad():
        plain = [ours.run_all(x, lens, ctc, prompt=given, skip=skip) for skip in (True, False)]
        cut = ours(x, lens, ctc=ctc, max_layer=1, **arguments(given))[0][0]
        ours.optimize_for_inference()
        fast = [ours.run_all(x, lens, ctc, prompt=given, skip=skip) for skip in (True, False)]
        cut_fast = ours(x, lens, ctc=ctc, max_layer=1, **arguments(given))[0][0]
        halved = {k: v / 2 for k, v in ours.encoders.state_dict().items()}
        ours.encoders.load_state_dict(halved)
        again = ours.run_all(x, lens, ctc, prompt=given, skip=False)
    assert torch.equal(fast[0].keep_mask, plain[0].keep_mask)
    for one, other in zip(fast, plain, strict=True):
        valid = torch.arange(one.out.size(1)) < one.lens[:, None]
        assert_same(one.out[valid], other.out[valid])
    assert_same(cut_fast[valid], cut[valid])
    assert relative_error(again.out[valid], fast[1].out[valid]) > 1e-3  # the loaded weights
    assert ours.fast_form().layers[1].cross is None or ours.fast_form().layers[1].memory is None


@pytest.mark.parametrize("context", CONTEXTS)
def test_prefixes_never_skip_and_no_gate_looks_at_them(context):
    x, lens, ctc, given = features(2, 120, 40), torch.tensor([120, 120]), head(), prompt(2)
    _, ours = gated(context, ctc, given, x, lens, gates=(2,))
    full = ours.run_all(x, lens, ctc, prompt=given, skip=False, intermediates=True)
    settings = SkipSettings(spike_extension=(1, 1))
    whole = ours.run_all(x, lens, ctc, settings, prompt=given)
    cut = ours.run(x, lens, ctc, settings, prompt=given)
    probs = ctc.softmax(dict(full.intermediates)[2])[..., 0]
    assert cut.out.size(1) == cut.trace.valid_mask.size(1) == whole.out.size(1) - 2
    gate = BlankGate(ours.blank_threshold, (1, 1), 0.0)
    audio = probs[:, 2:]
    assert torch.equal(cut.keep_mask, gate(audio, torch.ones_like(audio).bool()))
    assert whole.keep_mask[:, :2].all()
    with torch.no_grad():
        ctc.ctc_lo.bias[0] = 1e4  # everything is blank
        all_blank = ours.run(x, lens, ctc, prompt=given)
        assert all_blank.trace.skip_ratio() == 1.0
        states = dict(ours.run_all(x, lens, ctc, prompt=given, intermediates=True).intermediates)
        out = ours.run_all(x, lens, ctc, prompt=given).out
    assert_same(out[:, 2:], states[2][:, 2:])  # raw, as the head has seen them
    assert relative_error(out[:, :2], states[2][:, :2]) > 1e-3


def test_repeats_are_counted_without_the_prefix():
    x, lens, ctc, given = features(2, 120, 40), torch.tensor([120, 90]), head(), prompt(2)
    _, ours = gated("packed", ctc, given, x, lens, gates=(2,))
    found = ours.run(x, lens, ctc, SkipSettings(repeat_threshold=0.2), prompt=given)
    speaker = found.trace.gates[0].speaker
    assert int(speaker.min()) == 0
    assert int(speaker.max()) < found.out.size(1)
    moved = speaker != torch.arange(found.out.size(1))
    assert moved.any()
    spoken = found.out.gather(1, speaker[..., None].expand_as(found.out))
    assert_same(found.out[moved], spoken[moved])


def test_an_early_exit_and_conditioning_at_gates():
    x, lens, ctc, given = features(2, 120, 40), torch.tensor([120, 90]), head(), prompt(2)
    _, ours = gated("full", ctc, given, x, lens, gates=(2,))
    states = dict(
        ours.run(x, lens, ctc, skip=False, intermediates=True, prompt=given).intermediates
    )
    exit_at = ours.run(x, lens, ctc, SkipSettings(exit_layer=2), prompt=given)
    assert_same(exit_at.out, states[2])
    encoded = ours.run(x, lens, ctc, prompt=given)
    skipped = encoded.trace.valid_mask & ~encoded.keep_mask
    assert_same(encoded.out[skipped], states[2][skipped])  # before the conditioning
    assert_same(encoded.trace.blank_prob(), ctc.softmax(states[2])[..., 0])


def test_nothing_of_a_call_stays_and_the_way_back():
    x, lens, ctc, given = features(2, 120, 40), torch.tensor([120, 120]), head(), prompt(2)
    stock, ours = gated("packed", ctc, given, x, lens, gates=(2,))
    before = dict(vars(ours))
    expected = ours(x, lens, ctc=ctc, **arguments(given))[0][0]
    assert vars(ours) == before
    made = from_stock(stock, [2])
    made.settings = ours.settings
    assert type(made) is OURS
    assert torch.equal(made(x, lens, ctc=ctc, **arguments(given))[0][0], expected)
    if NEW or hasattr(stock.embed, "pos_enc"):
        off = stock(x, lens, ctc=ctc, **arguments(given))[0][0]
        assert torch.equal(to_stock(made)(x, lens, ctc=ctc, **arguments(given))[0][0], off)
    make_stock(made)
    assert type(made) is OURS.STOCK


def test_legacy_positions_run_alone():
    legacy = {**RELATIVE, "rel_pos_type": "legacy"}
    x, lens, ctc, given = features(3, 140, 40), torch.tensor([140, 101, 77]), head(), prompt()
    _, ours = gated("packed", ctc, given, x, lens, **legacy)
    batch = ours.run(x, lens, ctc, prompt=given)
    alone = ours.run(x[1:2, :101], lens[1:2], ctc, prompt=given.row(1))
    assert torch.equal(batch.trace.utterance(1).keep_mask, alone.keep_mask)
    assert_same(batch.out[1, : alone.out.size(1)], alone.out[0])
    with pytest.raises(ValueError, match="full needs rel_pos_type: latest"):
        build({"gate_layer_idx": [2]}, **legacy)


def test_what_cannot_be_is_refused_by_name():
    with pytest.raises(ValueError, match=r"between 1 and 4 .*got \[5\]"):
        build({"gate_layer_idx": [5]})
    x, lens = features(1, 120, 40), torch.tensor([120])
    _, ours = build({"gate_layer_idx": [2]}, interctc_use_conditioning=False)
    with pytest.raises(ValueError, match="skipping needs the CTC head"):
        ours(x, lens)
