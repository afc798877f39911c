"""A tiny OWSM-CTC with random weights, as files that ESPnet's S2T classes read."""

import argparse

import numpy as np
import torch
import yaml

from espnet_layerskip.recipe.token_list import train_bpe
from tests.support.experiments import noise

SYMBOLS = ("<na>", "<nolang>", "<eng>", "<asr>", "<notimestamps>")
ENCODER = {
    "output_size": 16,
    "attention_heads": 2,
    "attention_layer_type": "selfattn",
    "pos_enc_layer_type": "abs_pos",
    "cgmlp_linear_units": 24,
    "cgmlp_conv_kernel": 5,
    "merge_conv_kernel": 5,
    "num_blocks": 4,
    "input_layer": "conv2d8",  # ESPnet 202511 has no prefix behind others
    "use_ffn": True,
    "macaron_ffn": True,
    "linear_units": 24,
    "interctc_layer_idx": [2],
    "interctc_use_conditioning": True,
    "use_cross_attention": [False, True, False, True],
}


def s2t_task():
    """Return ESPnet's task of OWSM-CTC."""
    from espnet2.tasks.s2t_ctc import S2TTask

    return S2TTask


def make_s2t(directory, **encoder):
    """Write config.yaml and model.pth; about half of the frames are blank after layer 2."""
    directory.mkdir(parents=True)
    pieces = train_bpe(
        ["AB CD"] * 8, directory / "bpe", nbpe=1000, mode="char", symbols=",".join(SYMBOLS)
    )
    tokens = ["<blank>", "<unk>", *pieces, "<sos>", "<eos>", "<sop>"]
    config = s2t_task().get_default_config()
    config |= {
        "token_list": tokens,
        "token_type": "bpe",
        "bpemodel": str(directory / "bpe.model"),
        "init": None,
        "normalize": None,
        "frontend_conf": {"fs": 16000, "n_mels": 40, "hop_length": 160},
        "encoder": "e_branchformer_ctc",
        "encoder_conf": ENCODER | encoder,
        "promptencoder": "transformer",
        "promptencoder_conf": {
            "output_size": 16,
            "attention_heads": 2,
            "linear_units": 16,
            "num_blocks": 1,
        },
        "model": "espnet_ctc",
        "model_conf": {"interctc_weight": 0.5, "ctc_asr_only": [True, False]},
        "preprocessor_conf": {"fs": 16000, "speech_length": 4.8, "na_symbol": "<na>"},
    }
    torch.manual_seed(0)
    model = s2t_task().build_model(argparse.Namespace(**config)).eval()
    batch = s2t_batch(model)
    with torch.no_grad():
        model.ctc.ctc_lo.weight.mul_(10.0)
        letters = [i == 0 or len(token) == 1 for i, token in enumerate(tokens)]
        model.ctc.ctc_lo.bias[~torch.tensor(letters)] = -50.0  # they would not be printed
        (_, [(_, state), *_]), _ = model.encode(**encoder_inputs(batch))
        logits = model.ctc.ctc_lo(state[:, 2:])
        model.ctc.ctc_lo.bias[0] -= (logits[..., 0] - logits[..., 1:].logsumexp(-1)).median()
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(model.state_dict(), directory / "model.pth")
    return directory


def s2t_batch(model, batch=2):
    """Return what ESPnet's S2T model is trained with; the last utterance has no text."""
    rng = np.random.default_rng(3)
    speech = torch.from_numpy(np.stack([np.tile(noise(rng), 4) for _ in range(batch)]))
    ids = {token: i for i, token in enumerate(model.token_list)}
    text = torch.tensor([[ids["<eng>"], ids["<asr>"], ids["A"], ids["B"]]]).repeat(batch, 1)
    text_ctc = text.clone()
    text_ctc[-1] = ids["<na>"]
    parts = {
        "speech": speech,
        "text": text,
        "text_ctc": text_ctc,
        "text_prev": torch.full((batch, 1), ids["<na>"]),
        "prefix": text[:, :2],
    }
    lengths = {f"{k}_lengths": torch.full((batch,), v.size(1)) for k, v in parts.items()}
    return parts | lengths


def encoder_inputs(batch):
    """Return the part of a batch that the model's encoder takes."""
    names = ("speech", "text_prev", "prefix")
    return {k: batch[k].clone() for n in names for k in (n, f"{n}_lengths")}
