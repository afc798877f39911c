import argparse
import inspect
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import yaml

from espnet_layerskip._compat import ESPnetASRModel
from espnet_layerskip.encoders import ENCODERS
from espnet_layerskip.method.ctc import LayerSkipCTC
from espnet_layerskip.training.model import LayerSkipASRModel, head_like
from espnet_layerskip.training.task import LayerSkipASRTask
from tests.support.encoders import CONF
from tests.support.numerics import assert_same, largest

pytestmark = pytest.mark.numerics

TOKENS = ["<blank>", "<unk>", "A", "B", "C", "<sos/eos>"]


def build(encoder_conf=None, model_conf=None, **changes):
    """Build a model through ESPnet's task, as a recipe does."""
    conf = {k: v for k, v in CONF.items() if k != "input_size"}
    conf |= {"dropout_rate": 0.0, "positional_dropout_rate": 0.0}
    if changes.get("encoder") != "conformer":
        conf |= {"gate_layer_idx": [2], "spike_extension": [0, 0], "blank_threshold": 0.5}
    args = {
        "token_list": TOKENS,
        "encoder": "layerskip_conformer",
        "encoder_conf": conf | (encoder_conf or {}),
        "model": "layerskip",
        "model_conf": {"ctc_weight": 1.0, "interctc_weight": 0.3} | (model_conf or {}),
        "input_size": 20,
    }
    parser = LayerSkipASRTask.get_parser()
    defaults = vars(parser.parse_args(["--output_dir", "x", "--token_list", "x"]))
    torch.manual_seed(0)
    model = LayerSkipASRTask.build_model(argparse.Namespace(**{**defaults, **args, **changes}))
    with torch.no_grad():  # posteriors far from each other: some frames are blank, some not
        model.ctc.ctc_lo.weight.mul_(8.0)
    return model


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    speech = torch.randn(3, 80, 20, generator=generator)
    text = torch.tensor([[2, 3, 3], [4, 2, -1], [3, -1, -1]])
    return speech, torch.tensor([80, 64, 50]), text, torch.tensor([3, 2, 1])


def test_the_task_builds_our_classes():
    model = build()
    assert type(model) is LayerSkipASRModel
    assert type(model.ctc) is LayerSkipCTC
    assert model.ctc.head_type == "factorized"


def test_plain_head_without_distillation_is_espnets_loss():
    ours = build(model_conf={"ctc_head": "plain"}, encoder_conf={"blank_threshold": 1.0})
    stock = build({"interctc_layer_idx": [2]}, encoder="conformer", model="espnet")
    assert type(stock) is ESPnetASRModel
    stock.load_state_dict(ours.state_dict())
    speech, _, text, text_lens = batch()
    lens = torch.tensor([80, 80, 80])  # ESPnet 202511 does not mask its padding
    for model in (ours, stock):
        model.train()
    loss, stats, _ = ours(speech, lens, text, text_lens)
    expected, expected_stats, _ = stock(speech, lens, text, text_lens)
    assert_same(loss, expected)
    name = "loss_interctc_layer2"
    assert_same(stats[name], expected_stats[name])


def test_loss_is_the_sum_of_what_is_logged():
    weights = {"kd_blank_weight": 0.5, "kd_label_weight": 0.25}
    model = build(model_conf=weights).train()
    loss, stats, weight = model(*batch())
    parts = 0.7 * stats["loss_ctc"] + 0.3 * stats["loss_interctc_layer2"]
    parts = parts + 0.5 * stats["loss_kd_blank_layer2"] + 0.25 * stats["loss_kd_label_layer2"]
    assert float(loss) == pytest.approx(float(parts), rel=1e-5)
    assert float(stats["loss"]) == pytest.approx(float(loss), rel=1e-6)
    assert stats["loss_kd_blank_layer2"] > 0
    assert int(weight) == 3


def test_distillation_teaches_the_lower_layers_only():
    """With the CTC losses taken away no gradient may reach a layer above the gate."""
    model = build(
        model_conf={"kd_blank_weight": 1.0, "kd_label_weight": 1.0, "interctc_head": "own"}
    ).train()
    without = build(model_conf={"interctc_head": "own"}).train()
    without.load_state_dict(model.state_dict())
    for m in (model, without):
        m(*batch())[0].backward()
    grads = {n: p.grad for n, p in without.named_parameters() if p.grad is not None}
    rounding = 1e-5 * max(map(largest, grads.values()))
    changed = {
        name
        for name, p in model.named_parameters()
        if p.grad is not None and largest(p.grad - grads[name]) > rounding
    }
    assert any(name.startswith("encoder.encoders.1.") for name in changed)
    assert any(name.startswith("ctc.interctc_lo") for name in changed)
    assert not any(
        name.startswith(("encoder.encoders.2.", "encoder.encoders.3.")) for name in changed
    )
    assert not any(name.startswith("ctc.ctc_lo") for name in changed)


def test_gated_training_batches_log_what_was_skipped_and_train_all_layers():
    model = build(
        encoder_conf={"train_skip_prob": 1.0, "min_spike_ratio": 0.0, "blank_threshold": 0.5},
        model_conf={"kd_blank_weight": 0.3, "kd_label_weight": 0.3},
    ).train()
    loss, stats, _ = model(*batch())
    loss.backward()
    assert 0.0 < float(stats["skip_ratio"]) < 1.0
    assert all(p.grad is not None for p in model.parameters())
    assert "gate_precision_layer2" not in stats  # there is no final decision to compare with


def test_validation_scores_full_depth_and_skipping_apart():
    model = build(encoder_conf={"blank_threshold": 0.5, "min_spike_ratio": 0.0}).eval()
    with torch.no_grad():
        _, stats, _ = model(*batch())
    wanted = {"loss", "cer_ctc", "cer_ctc_skip", "cer_interctc_layer2", "skip_ratio"}
    wanted |= {"gate_precision_layer2", "gate_recall_layer2", "loss_kd_blank_layer2"}
    assert wanted <= stats.keys()
    assert 0.0 < float(stats["skip_ratio"]) < 1.0


def test_validation_loss_does_not_depend_on_the_threshold():
    losses = []
    for threshold in (1e-6, 1.0):
        model = build(encoder_conf={"blank_threshold": threshold, "min_spike_ratio": 0.0}).eval()
        with torch.no_grad():
            losses.append(float(model(*batch())[0]))
    assert losses[0] == losses[1]


def test_encode_returns_a_plain_tensor_at_inference():
    model = build().eval()
    speech, lens, _, _ = batch()
    out, olens = model.encode(speech, lens)
    assert isinstance(out, torch.Tensor)
    assert out.shape[:2] == (3, int(olens.max()))


def test_joint_attention_training_and_own_head():
    model = build(
        model_conf={"ctc_weight": 0.3, "interctc_head": "own", "kd_blank_weight": 0.1},
        decoder="transformer",
        decoder_conf={"linear_units": 16, "num_blocks": 1, "attention_heads": 2},
    ).train()
    loss, stats, _ = model(*batch())
    loss.backward()
    assert {"loss_att", "loss_ctc", "loss_interctc_layer2"} <= stats.keys()
    assert "ctc.interctc_lo.2.weight" in model.state_dict()


def test_self_loop_penalty_reaches_all_ctc_losses():
    model = build(model_conf={"ctc_weight": 1.0, "self_loop_penalty": 3.0})
    plain = build(model_conf={"ctc_weight": 1.0})
    plain.load_state_dict(model.state_dict())
    priced, free = (m(*batch())[1] for m in (model, plain))
    for name in ("loss_ctc", "loss_interctc_layer2"):
        assert priced[name] > free[name]


@pytest.mark.parametrize(
    ("model_conf", "message"),
    [
        ({"ctc_head": "split"}, "'plain', 'factorized'.*'split'"),
        ({"interctc_head": "mine"}, "one of shared, own, .*got .mine."),
        ({"kd_frames": "some"}, "kd_frames must be one of all, spikes, .*got .some."),
        ({"self_loop_penalty": -1.0}, "self_loop_penalty must be >= 0, but got -1.0"),
        ({"kd_blank_weight": -1.0}, "must be >= 0, but got -1.0"),
        ({"ctc_weight": 0.0}, "needs ctc_weight > 0"),
        ({"interctc_head": "own", "interctc_weight": 0.0}, "nothing else trains the heads"),
    ],
)
def test_bad_options(model_conf, message):
    with pytest.raises(ValueError, match=message):
        build(model_conf=model_conf)


def test_stock_encoder_with_our_model_is_refused():
    with pytest.raises(ValueError, match=r"needs an encoder with skipping.*ConformerEncoder"):
        build(encoder="conformer")


def test_blank_must_be_the_first_token():
    with pytest.raises(ValueError, match="<blank> must be token 0 .*token 1"):
        build(token_list=["<unk>", "<blank>", "A", "<sos/eos>"])


def test_other_ctc_losses_are_refused():
    ctc = build().ctc
    ctc.ctc_type = "gtnctc"
    with pytest.raises(ValueError, match="needs ctc_conf ctc_type: builtin.*'gtnctc'"):
        head_like(ctc, "plain", ())


def test_options_are_explicit_and_fit_yaml():
    """ESPnet's --print_config reads the signature."""
    parameters = inspect.signature(ENCODERS["layerskip_conformer"]).parameters
    defaults = {n: p.default for n, p in parameters.items() if n != "input_size"}
    assert yaml.safe_load(yaml.safe_dump(defaults)) == defaults
    assert {"gate_layer_idx", "blank_threshold", "cnn_module_kernel"} <= defaults.keys()


@pytest.mark.parametrize("head", ["plain", "factorized"])
def test_a_model_without_gates_trains_and_validates(head):
    model = build({"gate_layer_idx": []}, {"ctc_head": head, "kd_blank_weight": 0.1})
    loss, stats, _ = model.train()(*batch())
    loss.backward()
    assert {"loss", "loss_ctc"} <= stats.keys()
    with torch.no_grad():
        _, stats, _ = model.eval()(*batch())
    assert "cer_ctc" in stats
    assert "cer_ctc_skip" not in stats


def test_validation_in_threads_is_that_of_one_after_the_other():
    """What a call finds out stays with it: on the model it would meet another thread's."""
    model = build({"blank_threshold": 0.5, "min_spike_ratio": 0.0}, {"kd_blank_weight": 0.1}).eval()
    batches = [batch(seed) for seed in range(4)]

    def validate(i):
        with torch.no_grad():
            stats = model(*(t.clone() for t in batches[i % 4]))[1]
        return {name: float(value) for name, value in stats.items() if value is not None}

    expected = [validate(i) for i in range(4)]
    assert len({stats["skip_ratio"] for stats in expected}) > 1
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(validate, range(48)))
    assert all(one == pytest.approx(expected[i % 4], rel=1e-5) for i, one in enumerate(found))
    assert not {"encoded", "encoder"} & set(vars(model))
