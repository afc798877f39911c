import pytest
import torch

from espnet_layerskip.training.consistency import consistency_loss, two_views
from tests.support.numerics import assert_same

from .test_model import batch, build

pytestmark = pytest.mark.numerics

WEIGHT = {"consistency_weight": 0.2}
SPECAUG = {"apply_time_warp": False, "freq_mask_width_range": [0, 10], "apply_time_mask": False}
VIEWS = {"specaug": "specaug", "specaug_conf": SPECAUG}


def test_equal_views_agree():
    (log_probs,) = two_views(torch.randn(2, 5, 3).log_softmax(-1))
    assert float(consistency_loss(log_probs, torch.ones(4, 5, dtype=torch.bool))) == 0.0


def test_each_view_is_a_teacher_without_gradient():
    """d KL(sg(p) || softmax(z)) / dz = softmax(z) - p: the teacher adds nothing to it."""
    torch.manual_seed(0)
    logits = torch.randn(2, 1, 3, requires_grad=True)
    consistency_loss(logits.log_softmax(-1), torch.ones(2, 1, dtype=torch.bool)).backward()
    a, b = logits.detach().softmax(-1)
    assert_same(logits.grad, 0.5 * torch.stack((a - b, b - a)))


def test_a_training_batch_has_two_views_and_logs_how_far_they_are_apart():
    model = build(model_conf=WEIGHT, **VIEWS).train()
    loss, stats, _ = model(*batch())
    loss.backward()
    loss = loss.detach()
    assert float(stats["loss_consistency"]) > 0.0
    parts = 0.7 * stats["loss_ctc"] + 0.3 * stats["loss_interctc_layer2"]
    parts = parts + 0.2 * stats["loss_consistency"]
    assert float(loss) == pytest.approx(float(parts), rel=1e-5)
    assert float(stats["loss"]) == pytest.approx(float(loss), rel=1e-6)


def test_without_augmentation_the_loss_is_that_of_one_view():
    """Two equal views: the CTC loss is the mean of two equal ones, and they agree."""
    conf = {"encoder_conf": {"train_skip_prob": 0.0}}
    two, one = build(model_conf=WEIGHT, **conf).train(), build(**conf).train()
    one.load_state_dict(two.state_dict())
    loss, stats, _ = two(*batch())
    assert abs(stats["loss_consistency"]) < 1e-6 * stats["loss"]
    assert_same(loss, one(*batch())[0])


def test_skipped_frames_are_not_compared():
    model = build(
        {"train_skip_prob": 1.0, "min_spike_ratio": 0.0, "blank_threshold": 1e-6},
        WEIGHT,
        **VIEWS,
    ).train()
    stats = model(*batch())[1]
    assert float(stats["skip_ratio"]) == 1.0
    assert float(stats["loss_consistency"]) == 0.0


def test_validation_sees_one_view():
    model, plain = build(model_conf=WEIGHT, **VIEWS).eval(), build(**VIEWS).eval()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        (loss, stats, weight), expected = model(*batch()), plain(*batch())
    assert int(weight) == 3
    assert "loss_consistency" not in stats
    assert float(loss) == float(expected[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_conf": {"consistency_weight": -0.1}}, "consistency_weight must be >= 0.*-0.1"),
        (
            {
                "model_conf": WEIGHT,
                "specaug": "specaug",
                "specaug_conf": {"apply_time_mask": False},
            },
            "apply_time_warp: false",
        ),
    ],
)
def test_a_wrong_configuration_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)
