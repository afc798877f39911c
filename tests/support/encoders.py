"""Small models, random weights: what is tested here holds for any weights."""

from functools import partial

import pytest
import torch

from espnet_layerskip.encoders import ENCODERS
from espnet_layerskip.method.ctc import LayerSkipCTC, head_blank_prob
from espnet_layerskip.method.gate import BlankGate

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
_SHARED = {
    name: CONF[name] for name in ("input_size", "output_size", "attention_heads", "num_blocks")
}
_CGMLP = {"cgmlp_linear_units": 24, "cgmlp_conv_kernel": 5}
_FFN = {"use_ffn": True, "macaron_ffn": True, "linear_units": 24}
KINDS = {
    "conformer": CONF,
    "transformer": _SHARED | {"linear_units": 24},
    "branchformer": _SHARED | _CGMLP,
    "e_branchformer": _SHARED | _CGMLP | _FFN,
}
CONTEXTS = ["packed", "packed_original", "full"]
GATED = {"gate_layer_idx": [2], "blank_threshold": 0.5, "spike_extension": [0, 0]}
ABSOLUTE = {"pos_enc_layer_type": "abs_pos"}
NO_DROPOUT = dict.fromkeys(("dropout_rate", "positional_dropout_rate"), 0.0)
# (kind, options, contexts): those which can have gates
SKIPPING = [
    ("conformer", {}, CONTEXTS),
    ("transformer", {}, CONTEXTS),
    ("transformer", {"normalize_before": False}, CONTEXTS),
    ("transformer", {"concat_after": True, "input_layer": "conv1d2"}, CONTEXTS),
    ("transformer", {"qk_norm": True, "input_layer": "linear"}, CONTEXTS),
    ("e_branchformer", {}, CONTEXTS),
    ("e_branchformer", {"merge_conv_kernel": 7, "use_linear_after_conv": True}, CONTEXTS),
    ("e_branchformer", {"use_ffn": False, "macaron_ffn": False, "zero_triu": True}, CONTEXTS),
    ("e_branchformer", {"macaron_ffn": False, "gate_activation": "swish"}, CONTEXTS),
    ("e_branchformer", ABSOLUTE | {"attention_layer_type": "selfattn"}, CONTEXTS),
    ("e_branchformer", ABSOLUTE | {"attention_layer_type": "fast_selfattn"}, CONTEXTS),
    ("branchformer", {}, CONTEXTS),
    ("branchformer", {"merge_method": "learned_ave"}, CONTEXTS[:2]),
    ("branchformer", {"merge_method": "fixed_ave", "cgmlp_weight": [0.0, 0.3, 0.6, 1.0]}, CONTEXTS),
    ("branchformer", {"use_attn": False, "use_linear_after_conv": True}, CONTEXTS),
    ("branchformer", {"use_cgmlp": False, "zero_triu": True}, CONTEXTS),
    ("branchformer", ABSOLUTE | {"attention_layer_type": "fast_selfattn"}, CONTEXTS),
]


def build_encoders(kind, skip=None, **changes):
    """Return (stock, ours) of a kind with the same weights, in evaluation mode."""
    torch.manual_seed(0)
    conf = {**KINDS[kind], **changes}
    ours_class = ENCODERS[f"layerskip_{kind}"]
    stock = ours_class.STOCK(**conf)
    with torch.no_grad():  # norms as training could leave them
        for name, buffer in stock.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 1.5)
        for name, parameter in stock.named_parameters():
            if "norm" in name and kind != "conformer":
                parameter.uniform_(0.5, 1.5).sub_(0.7 if name.endswith("bias") else 0.0)
    ours = ours_class(**conf, **(skip or {}))
    ours.load_state_dict(stock.state_dict())
    return stock.eval(), ours.eval()


class Keep(BlankGate):
    """Lets the first frames of a batch go on."""

    kept = 1

    def __call__(self, blank_prob, valid_mask):
        keep = torch.zeros_like(valid_mask)
        keep[0, : self.kept] = True
        return keep


def cases(contexts=False, plain=False):
    """Parameters of a test over all that can skip, and the contexts that they have.

    Args:
        contexts: In all contexts, not only in the last one.
        plain: Without options that change how a layer looks at other frames.
    """
    for kind, options, allowed in SKIPPING:
        if plain and options and "merge_method" not in options:
            continue
        for context in allowed if contexts else [allowed[-1]]:
            name = " ".join([kind, *map(str, options.values()), context])
            yield pytest.param(kind, options, context, id=name)


def features(batch=2, length=90, size=20, seed=0):
    return torch.randn(batch, length, size, generator=torch.Generator().manual_seed(seed))


def gated(kind, options, context, ctc=None, **changes):
    """Build (stock, ours); with a head, about half of the frames are blank at each gate."""
    skip = {**GATED, "skip_context": context, "min_spike_ratio": 0.0, **changes}
    stock, ours = build_encoders(kind, skip, **options)
    if ctc is not None:
        x, lens = features(3), torch.tensor([90, 62, 35])
        states = dict(ours.run(x, lens, ctc, skip=False, intermediates=True).intermediates)
        valid = ours.run(x, lens, ctc, skip=False).depth(4) > 0
        middles = []
        for layer_idx in ours.gate_layer_idx:
            probs = head_blank_prob(ctc, states[layer_idx].detach(), layer_idx)[valid]
            probs = probs.detach().sort().values
            middles.append(float(probs[len(probs) // 2 - 1 :][:2].mean()))
        ours.blank_threshold = middles
    return stock, ours


def self_condition(ours, layers):
    """Let an encoder condition itself after these layers on what a head of 9 tokens says."""
    ours.interctc_layer_idx, ours.interctc_use_conditioning = layers, True
    ours.conditioning_layer = torch.nn.Linear(9, CONF["output_size"])
    with torch.no_grad():
        ours.conditioning_layer.weight.mul_(0.2)


def conditioned(ours, h, active, layer_idx, ctc):
    """Return full-length states (B, T, D) conditioned after a layer where ``active``."""
    if not ours.interctc_use_conditioning or layer_idx not in ours.interctc_layer_idx:
        return h
    new = h + ours.conditioning_layer(ctc.softmax(ours.normalised(h)))
    return torch.where(active[..., None], new, h)


@pytest.fixture
def make_encoder():
    """Build (stock, ours) Conformers with the same weights, in evaluation mode."""
    return partial(build_encoders, "conformer")


def make_head():
    """Return a head of 9 tokens that takes about half of the frames for blank."""
    torch.manual_seed(3)
    head = LayerSkipCTC(9, CONF["output_size"]).eval()
    with torch.no_grad():
        head.ctc_lo.weight.mul_(3.0)
        head.ctc_lo.bias[0] = -1.2
    return head


@pytest.fixture
def ctc():
    return make_head()
