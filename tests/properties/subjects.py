"""What the properties are about: every encoder in every context, and what may come to it.

The simplest example of each strategy is an ordinary one: three utterances of different length,
two gates, half of the frames blank. It is tried first, so a run of few examples has it.
``pytest --hypothesis-profile=nightly tests/properties`` tries many.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from espnet_layerskip.encoders.e_branchformer_ctc import Prompt
from espnet_layerskip.method.ctc import head_blank_prob
from espnet_layerskip.method.frames import Encoded
from espnet_layerskip.method.settings import SkipSettings
from tests.support import owsm_encoder
from tests.support.encoders import CONTEXTS, SKIPPING, build_encoders, make_head, self_condition

GATES = [1, 3]
CONDITIONED = {"interctc": True}  # an option of these tests: self-conditioning after two layers
WIDE = {"merge_conv_kernel": 7, "use_linear_after_conv": True}  # reaches farther
_PLAIN = ("conformer", "transformer", "branchformer", "e_branchformer")
CASES = [
    ("conformer", CONDITIONED, CONTEXTS),
    *SKIPPING,
    *((kind, CONDITIONED, CONTEXTS) for kind in _PLAIN[1:]),
    *(("e_branchformer_ctc", form, CONTEXTS) for form in owsm_encoder.FORMS),
]
PAST = 64  # no batch is padded to more frames than the longest utterance and these
MEMORIES = (5, 3, 1, 4)  # lengths of prompts


def few(number: int) -> Any:
    """Return a decorator that asks for so many examples, in the nightly profile for far more."""
    many = max(1, settings.default.max_examples // 100)
    return settings(
        max_examples=number * many,
        phases=set(Phase) if many > 1 else {Phase.explicit, Phase.reuse, Phase.generate},
        suppress_health_check=[HealthCheck.too_slow],
    )


@cache
def _built(kind: str, options: str) -> tuple[Any, Any, Any]:
    chosen = dict(next(o for k, o, _ in CASES if k == kind and str(o) == options))
    conditioned = chosen.pop("interctc", False)
    if kind == "e_branchformer_ctc":
        return (*owsm_encoder.build({"gate_layer_idx": GATES, "skip_context": "packed"}, **chosen),
                owsm_encoder.head())  # fmt: skip
    skip = {"gate_layer_idx": GATES, "skip_context": "packed"}
    stock, ours = build_encoders(kind, skip, **chosen)
    if conditioned:
        torch.manual_seed(2)
        self_condition(ours, [1, 2])
    return stock, ours, make_head()


@dataclass(frozen=True)
class Subject:
    """An encoder in a context.

    Attributes:
        kind: Its name without "layerskip\\_".
        options: Of the encoder.
        context: What kept frames see.
    """

    kind: str
    options: dict[str, Any]
    context: str

    @property
    def stock(self) -> Any:
        """ESPnet's encoder with the same weights."""
        return _built(self.kind, str(self.options))[0]

    @property
    def ours(self) -> Any:
        """The encoder, in evaluation mode; shared by all tests, which leave it as it is."""
        return _built(self.kind, str(self.options))[1]

    @property
    def ctc(self) -> Any:
        """The head."""
        return _built(self.kind, str(self.options))[2]

    @property
    def fast(self) -> Any:
        """The encoder in its fast form; None if there is none for these options."""
        return _changed(self.kind, str(self.options), "fast")

    @property
    def exact(self) -> Any:
        """The encoder in float64."""
        return _changed(self.kind, str(self.options), "double")

    @property
    def size(self) -> int:
        """Features of a frame."""
        return 40 if self.kind == "e_branchformer_ctc" else 20

    @property
    def layers(self) -> int:
        """Layers of the encoder."""
        return len(self.ours.encoders)

    @property
    def ordinary(self) -> list[int]:
        """Lengths of an ordinary batch, in frames of features."""
        return [140, 101, 77] if self.kind == "e_branchformer_ctc" else [90, 62, 35]

    @property
    def shortest(self) -> int:
        """Frames of features of which one frame is left."""
        return 15 if self.kind == "e_branchformer_ctc" else 7

    def prompt(self, rows: list[int], length: int | None = None, double: bool = False) -> Any:
        """Return what OWSM-CTC's encoder is given beside these utterances; None for others.

        Args:
            rows: Numbers of the utterances; each has a prompt of its own.
            length: To what the memories are padded; None = the longest one of all.
            double: In float64.
        """
        if self.kind != "e_branchformer_ctc":
            return None
        draw = torch.Generator().manual_seed(1)
        prefix = torch.randn(len(MEMORIES), 2, 16, generator=draw)[rows]
        memory = torch.randn(len(MEMORIES), max(MEMORIES), 16, generator=draw)[rows]
        counts = torch.tensor(MEMORIES)[rows, None]
        mask = (torch.arange(max(MEMORIES)) < counts)[:, None]
        memory, mask = memory[:, :length], mask[..., :length]
        if double:
            prefix, memory = prefix.double(), memory.double()
        return Prompt(prefix, memory, mask)

    def run(self, encoder: Any, x: Any, lens: Any, how: Any, **options: Any) -> Encoded:
        """Run an encoder on a batch; ``rows`` says whose prompts it gets (default: in order)."""
        rows = options.pop("rows", list(range(len(lens))))
        double = x.dtype == torch.double
        head = options.pop("ctc", self.ctc)
        if double:
            head = copy.deepcopy(head).double()
        if self.kind == "e_branchformer_ctc":
            alone = MEMORIES[rows[0]] if len(rows) == 1 else None
            options["prompt"] = self.prompt(rows, alone, double)
        return encoder.run(x, torch.as_tensor(lens), head, how, **options)

    def __str__(self) -> str:
        return " ".join([self.kind, *map(str, self.options.values()), self.context])


@cache
def _changed(kind: str, options: str, change: str) -> Any:
    encoder = copy.deepcopy(_built(kind, options)[1])
    if change == "double":
        return encoder.double()
    try:
        encoder.optimize_for_inference()
    except ValueError:
        return None
    return encoder


def subjects(fast: bool = False, plain: bool | None = None, contexts: bool = True) -> list[Any]:
    """Return the parameters of a test.

    Args:
        fast: Those that have a fast form only.
        plain: True: those without options only; False: those with options only.
        contexts: In each context that an encoder has, not only in the last one.
    """
    found = [Subject(k, o, c) for k, o, own in CASES for c in (own if contexts else own[-1:])]
    if fast:  # known without building them
        kinds = (*_PLAIN, "e_branchformer_ctc")
        forms = ({}, CONDITIONED, *owsm_encoder.FORMS, {"macaron_ffn": False})
        found = [s for s in found if s.kind in kinds and any(s.options == f for f in forms)]
    if plain is not None:
        found = [s for s in found if (not s.options) is plain]
    return [pytest.param(s, id=str(s)) for s in found]


@dataclass
class Batch:
    """Utterances, and how they are gated.

    Attributes:
        lengths: Frames of features of each utterance.
        seed: Of the features.
        quantiles: Share of the frames that are blank to each gate: 0.999 = all; 1.0 = it is off.
        extension: Neighbours (left, right) that go on.
        min_spike_ratio: As in `SkipSettings`.
        min_skipped_frames: As in `SkipSettings`.
        order: Draws the order in which the utterances stand in the batch.
        padding: More frames of padding than the longest utterance needs.
        filling: What the padding holds, as a multiple of noise.
    """

    lengths: list[int]
    seed: int
    quantiles: tuple[float, float]
    extension: tuple[int, int]
    min_spike_ratio: float
    min_skipped_frames: int
    order: int
    padding: int
    filling: float

    def features(self, size: int) -> list[torch.Tensor]:
        """Return the features of each utterance (T, F)."""
        draw = torch.Generator().manual_seed(self.seed)
        return [torch.randn(n, size, generator=draw) for n in self.lengths]

    def rows(self) -> list[int]:
        """Return the order of the utterances in the batch."""
        draw = torch.Generator().manual_seed(self.order)
        number = len(self.lengths)
        return torch.randperm(number, generator=draw).tolist() if self.order else [*range(number)]

    def padded(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch (B, T, F) in the order of ``rows``, and its lengths."""
        parts, width = self.features(size), max(self.lengths) + self.padding
        draw = torch.Generator().manual_seed(self.seed + 1)
        x = self.filling * torch.randn(len(parts), width, size, generator=draw)
        for place, row in enumerate(self.rows()):
            x[place, : len(parts[row])] = parts[row]
        return x, torch.tensor([self.lengths[row] for row in self.rows()])


def batches(subject: Subject, short: bool = False) -> st.SearchStrategy[Batch]:
    """Return batches for an encoder.

    Args:
        subject: The encoder.
        short: Some utterances have one frame, or are too short for any.
    """
    longest, least = max(subject.ordinary) + 20, subject.shortest
    lengths = st.lists(st.integers(least, longest), min_size=1, max_size=len(MEMORIES))
    lengths = st.one_of(st.just(subject.ordinary), lengths)
    if short:
        tiny = st.integers(1, least + 4)
        lengths = st.tuples(
            st.sampled_from([least, max(subject.ordinary)]), st.lists(tiny, min_size=1, max_size=3)
        ).map(lambda both: [both[0], *both[1]])
    quantile = st.sampled_from([0.5, 0.3, 0.8, 0.0, 0.999, 1.0])
    extension = st.sampled_from([0, 1, 3])
    return st.builds(
        Batch,
        lengths,
        st.integers(0, 2**16),
        st.tuples(quantile, quantile),
        st.tuples(extension, extension),
        st.sampled_from([0.0, 0.02, 0.5]),
        st.sampled_from([0, 3, 9]),
        st.integers(0, 2**16),
        st.integers(0, PAST),
        st.sampled_from([0.0, 1.0, 1e3]),
    )


_SETTINGS: dict[str, SkipSettings] = {}  # the ordinary examples come in several tests


def skip_settings(subject: Subject, batch: Batch, repeats: float = 1.0) -> SkipSettings:
    """Return the settings of a batch, with thresholds that no rounding error can cross."""
    key = f"{subject} {batch} {repeats}"
    if key not in _SETTINGS:
        _SETTINGS[key] = _skip_settings(subject, batch, repeats)
    return _SETTINGS[key]


def _skip_settings(subject: Subject, batch: Batch, repeats: float) -> SkipSettings:
    parts = batch.features(subject.size)
    x = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
    rest = {
        "spike_extension": batch.extension,
        "skip_context": subject.context,
        "min_spike_ratio": batch.min_spike_ratio,
        "min_skipped_frames": batch.min_skipped_frames,
        "repeat_threshold": repeats,
    }
    with torch.no_grad():
        stop = SkipSettings(exit_layer=GATES[0])
        lower = subject.run(subject.ours, x, batch.lengths, stop, intermediates=True)
        valid = torch.arange(lower.out.size(1)) < lower.lens[:, None]
        probs = head_blank_prob(subject.ctc, dict(lower.intermediates)[GATES[0]], GATES[0])
        first = between(probs[valid], probs[valid], batch.quantiles[0])
        second = 1.0
        if batch.quantiles[1] < 1.0:
            how = SkipSettings(blank_threshold=(first, 0.5), **rest)
            trace = subject.run(subject.ours, x, batch.lengths, how).trace
            if trace is not None:
                probs, valid = trace.gates[-1].blank_prob, trace.valid_mask
                arrived = trace.gates[0].keep_mask if len(trace.gates) == 2 else valid
                second = between(probs[valid], probs[arrived], batch.quantiles[1])
    return SkipSettings(blank_threshold=(first, second), **rest)


def between(probs: torch.Tensor, of: torch.Tensor, share: float) -> float:
    """Return a number that about this share ``of`` some is above, far from all ``probs``."""
    if share == 1.0 or not len(of):
        return 1.0
    ends = torch.tensor([1e-6]), torch.tensor([1.0])
    edges = torch.cat((ends[0], probs.float().sort().values.clamp(1e-6, 1.0), ends[1]))
    wide = (edges[1:] - edges[:-1] > 2e-4).nonzero().flatten()
    middles = (edges[wide] + edges[wide + 1]) / 2
    wanted = of.float().quantile(1.0 - share)
    return float(middles[(middles - wanted).abs().argmin()]) if len(middles) else 1.0
