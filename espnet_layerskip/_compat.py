"""The one module that imports ESPnet internals, for ESPnet 202511 and 202611.

Between the two versions ``espnet.nets.*`` moved to ``espnet2.legacy.nets.*``; the layer
classes stay importable from ``espnet2.asr.encoder.conformer_encoder`` in both.
"""

import contextlib
import sys
from typing import Any

import espnet_layerskip._late_imports  # noqa: F401  before anything of ESPnet

# The import of its attention layers makes ESPnet 202511 print "Failed to import Flash
# Attention" to stdout, where our commands print transcripts: send it to stderr, as 202611
# does. Not around the tasks: ``--print_config`` binds sys.stdout when they are imported.
with contextlib.redirect_stdout(sys.stderr):
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
from espnet2.asr.ctc import CTC
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.tasks.asr import ASRTask, encoder_choices, model_choices

Swish = type(get_activation("swish"))

__all__ = [
    "CTC",
    "ASRTask",
    "ConformerEncoder",
    "Conv2dSubsampling",
    "ConvolutionModule",
    "ESPnetASRModel",
    "MultiHeadedAttention",
    "PositionwiseFeedForward",
    "RelPositionMultiHeadedAttention",
    "Swish",
    "TooShortUttError",
    "check_short_utt",
    "class_choices",
    "encoder_choices",
    "inference_module",
    "model_choices",
]


def class_choices() -> list[tuple[Any, Any]]:
    """Return every (encoder_choices, model_choices) pair that ESPnet's tasks read.

    ESPnet3 (in the 202611 wheel) keeps copies of its own beside ``espnet2.tasks.asr``.
    """
    pairs = [(encoder_choices, model_choices)]
    with contextlib.suppress(ImportError):
        from espnet3.systems.esp2_asr import task as espnet3_task

        pairs.append((espnet3_task.encoder_choices, espnet3_task.model_choices))
    return pairs


def inference_module() -> Any:
    """Import ``espnet2.bin.asr_inference``: only where decoding is wanted, it takes seconds."""
    from espnet2.bin import asr_inference

    return asr_inference
