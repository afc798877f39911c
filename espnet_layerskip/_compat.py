"""The one module that imports ESPnet internals, for ESPnet 202511 and 202611.

Between the two versions ``espnet.nets.*`` moved to ``espnet2.legacy.nets.*``; the layer
classes stay importable from ``espnet2.asr.encoder.conformer_encoder`` (and the encoders
beside it) in both.
"""

import contextlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

# The import of its attention layers makes ESPnet 202511 print "Failed to import Flash
# Attention" to stdout, where our commands print transcripts: send it to stderr, as 202611
# does. Not around the tasks: ``--print_config`` binds sys.stdout when they are imported.
with contextlib.redirect_stdout(sys.stderr):
    from espnet2.asr.encoder.branchformer_encoder import BranchformerEncoder, FastSelfAttention
    from espnet2.asr.encoder.conformer_encoder import (
        ConformerEncoder,
        Conv2dSubsampling,
        ConvolutionModule,
        MultiHeadedAttention,
        PositionwiseFeedForward,
        RelPositionMultiHeadedAttention,
        TooShortUttError,
        check_short_utt,
        get_activation,
    )
    from espnet2.asr.encoder.e_branchformer_ctc_encoder import EBranchformerCTCEncoder
    from espnet2.asr.encoder.e_branchformer_encoder import (
        ConvolutionalPositionalEmbedding,
        EBranchformerEncoder,
    )
    from espnet2.asr.encoder.transformer_encoder import TransformerEncoder
from espnet2.asr.ctc import CTC
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.asr.preencoder.linear import LinearProjection

Swish = type(get_activation("swish"))

__all__ = [
    "CTC",
    "BranchformerEncoder",
    "ConformerEncoder",
    "Conv2dSubsampling",
    "ConvolutionModule",
    "ConvolutionalPositionalEmbedding",
    "EBranchformerCTCEncoder",
    "EBranchformerEncoder",
    "ESPnetASRModel",
    "FastSelfAttention",
    "LinearProjection",
    "MultiHeadedAttention",
    "PositionwiseFeedForward",
    "RelPositionMultiHeadedAttention",
    "Swish",
    "TooShortUttError",
    "TransformerEncoder",
    "abs_task",
    "alignment_module",
    "asr_task",
    "check_short_utt",
    "encoder_class",
    "inference_module",
    "s2t_inference_module",
    "signature_with",
]


def abs_task() -> Any:
    """Import ESPnet's AbsTask, whose build_model_from_file all its inference classes call."""
    from espnet2.tasks.abs_task import AbsTask

    return AbsTask


def alignment_module() -> Any:
    """Import ``espnet2.bin.asr_align``; needs the package ctc_segmentation."""
    from espnet2.bin import asr_align

    return asr_align


def asr_task() -> Any:
    """Import ESPnet's ASRTask: not at the top, since its import registers our classes."""
    from espnet2.tasks.asr import ASRTask

    return ASRTask


def encoder_class(name: str) -> Any:
    """Return the class that a configuration calls ``encoder: name``.

    Raises:
        ValueError: If ESPnet's ASR task knows no such encoder.
    """
    from espnet2.tasks.asr import encoder_choices

    return encoder_choices.get_class(name)


def inference_module() -> Any:
    """Import ``espnet2.bin.asr_inference``: only where decoding is wanted, it takes seconds."""
    from espnet2.bin import asr_inference

    return asr_inference


def s2t_inference_module() -> Any:
    """Import ``espnet2.bin.s2t_inference_ctc``, the inference classes of OWSM-CTC."""
    from espnet2.bin import s2t_inference_ctc

    return s2t_inference_ctc


def signature_with(stock: Any, options: Mapping[str, Any]) -> inspect.Signature:
    """Return the signature of a class of ESPnet with more options: it reads defaults from it.

    Args:
        stock: The class.
        options: By name, with their defaults.
    """
    known, kind = inspect.signature(stock).parameters.values(), inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, kind, default=value) for name, value in options.items()]
    return inspect.Signature([*known, *added])
