"""Known ways to break the code, and the tests that have to notice: see mutation_check.py.

Each is an exact replacement in one file, of text that is there exactly once. The tests are those
that are named for the thing: not all that might notice.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A way to break the code.

    Attributes:
        name: What is wrong then.
        file: Path in the repository.
        old: Text that is there exactly once.
        new: What stands in its place.
        tests: Files or tests, as pytest takes them.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


METHOD = "espnet_layerskip/method/"
ENCODERS = "espnet_layerskip/encoders/"
TRAINING = "espnet_layerskip/training/"
PROPERTIES = "tests/properties/test_encoders.py::"
ALONE = PROPERTIES + "test_an_utterance_is_the_same_alone_and_in_any_company"
MASKED = PROPERTIES + "test_the_packed_path_is_the_masked_reference"
FAST = PROPERTIES + "test_the_fast_form_is_the_plain_one"
GATE = ("tests/method/test_gate.py",)
PACKING = ("tests/method/test_packing.py",)
LOSSES = "tests/properties/test_losses.py"
MODEL = ("tests/training/test_model.py",)

MUTANTS = [
    # the gate
    Mutant(
        "gate ignored: every frame goes on",
        METHOD + "frames.py",
        "            self.frames.keep(trace.keep_mask)\n",
        "            pass\n",
        (MASKED + "[conformer packed]",),
    ),
    Mutant(
        "threshold not read: 0.9 whatever was set",
        METHOD + "gate.py",
        "~(blank_prob > self.blank_threshold)",
        "~(blank_prob > 0.9)",
        GATE,
    ),
    Mutant(
        "a frame at the threshold is dropped",
        METHOD + "gate.py",
        "~(blank_prob > self.blank_threshold)",
        "~(blank_prob >= self.blank_threshold)",
        GATE,
    ),
    Mutant(
        "NaN counts as blank",
        METHOD + "gate.py",
        "~(blank_prob > self.blank_threshold)",
        "(blank_prob <= self.blank_threshold)",
        GATE,
    ),
    Mutant(
        "padding counts as speech",
        METHOD + "gate.py",
        "        return keep & valid_mask\n",
        "        return keep\n",
        GATE,
    ),
    Mutant(
        "extension to one side only",
        METHOD + "gate.py",
        "            keep[:, shift:] |= chosen[:, :-shift]\n",
        "            pass\n",
        GATE,
    ),
    Mutant(
        "left and right extension swapped",
        METHOD + "gate.py",
        "left, right = self.spike_extension",
        "right, left = self.spike_extension",
        GATE,
    ),
    Mutant(
        "extension reaches into the next utterance",
        METHOD + "gate.py",
        "            keep[:, shift:] |= chosen[:, :-shift]\n",
        "            keep |= chosen.flatten().roll(shift).view_as(chosen)\n",
        GATE,
    ),
    Mutant(
        "no fallback where spikes are too few",
        METHOD + "gate.py",
        "if self.min_spike_ratio > 0.0:",
        "if self.min_spike_ratio > 1.0:",
        GATE,
    ),
    Mutant(
        "min_skipped_frames without effect",
        METHOD + "gate.py",
        "        if least == 0:\n",
        "        if least >= 0:\n",
        ("tests/encoders/test_never_slower.py",),
    ),
    Mutant(
        "min_skipped_frames counts in training",
        ENCODERS + "base.py",
        "least = 0 if self.training else settings",
        "least = settings",
        ("tests/encoders/test_never_slower.py",),
    ),
    Mutant(
        "a dropped frame comes back at the next gate",
        METHOD + "gate.py",
        "self(blank_prob, valid_mask) & arrived",
        "self(blank_prob, valid_mask)",
        GATE,
    ),
    Mutant(
        "repeats: other labels belong to the run",
        METHOD + "repeats.py",
        " & (label[:, 1:] == label[:, :-1])",
        "",
        GATE,
    ),
    Mutant(
        "repeats: the peak is dropped too",
        METHOD + "repeats.py",
        "self.extend(spike & (peak == place), spike, valid_mask)",
        "self.extend(spike & (peak == place) & ~sure, spike, valid_mask)",
        GATE,
    ),
    Mutant(
        "thresholds of two gates mixed up",
        METHOD + "settings.py",
        "zip(layers, by_gate, strict=True)",
        "zip(layers, by_gate[::-1], strict=True)",
        ("tests/method/test_walk.py",),
    ),
    Mutant(
        "skipping cannot be turned off by a call",
        ENCODERS + "base.py",
        "if not skip or settings.exit_layer is not None:",
        "if settings.exit_layer is not None:",
        (PROPERTIES + "test_off_is_the_stock_encoder[conformer full]",),
    ),
    # moving frames
    Mutant(
        "scatter off by one",
        METHOD + "packing.py",
        "flat.index_copy(0, index.kept, rows)",
        "flat.index_copy(0, (index.kept + 1) % len(flat), rows)",
        PACKING,
    ),
    Mutant(
        "positions off by one",
        METHOD + "packing.py",
        "positions = (source % length).view(batch, width)",
        "positions = (source % length + 1).view(batch, width)",
        PACKING,
    ),
    Mutant(
        "empty slots are attended to",
        METHOD + "packing.py",
        "        mask = self.slot_mask.clone()\n",
        "        mask = torch.ones_like(self.slot_mask)\n",
        PACKING,
    ),
    Mutant(
        "the state before the gate's layer is kept",
        METHOD + "frames.py",
        "        self.frozen = self.full()\n",
        "        self.frozen = self.full() if self.frozen is None else self.frozen\n",
        (MASKED + "[transformer packed]",),
    ),
    Mutant(
        "padding passes as frames",
        ENCODERS + "base.py",
        "valid_mask = torch.arange(x.size(1), device=x.device) < olens[:, None]",
        "valid_mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)",
        (ALONE + "[conformer packed]",),
    ),
    Mutant(
        "convolutions read padding",
        ENCODERS + "convolution.py",
        "z = z if mask is None else z.masked_fill(~mask[..., None], 0.0)",
        "z = z.clone()",
        (ALONE + "[conformer packed]",),
    ),
    Mutant(
        "context full: skipped neighbours are silent",
        ENCODERS + "convolution.py",
        "        base = skipped(frames.frozen)\n",
        "        base = 0.0 * skipped(frames.frozen)\n",
        (MASKED + "[e_branchformer full]",),
    ),
    Mutant(
        "encoders that read padding are batched",
        ENCODERS + "base.py",
        "if not alike and self.gates(how, skip):",
        "if False and self.gates(how, skip):",
        ("tests/encoders/test_conformer.py",),
    ),
    # the walk
    Mutant(
        "self-conditioning left out",
        METHOD + "walk.py",
        "            frames.x = frames.x + encoder.conditioning_layer(probs)\n",
        "            pass\n",
        ("tests/encoders/test_all_stock.py",),
    ),
    Mutant(
        "self-conditioning of other frames",
        METHOD + "walk.py",
        "rows = row_of.index_select(0, frames.index.source)",
        "rows = row_of.index_select(0, frames.index.source).roll(1)",
        ("tests/method/test_walk.py", ALONE),
    ),
    Mutant(
        "the second gate forgets what the first one saw",
        METHOD + "walk.py",
        "blank = state.gates[-1].blank_prob if state.gates else nothing",
        "blank = nothing",
        ("tests/encoders/test_conformer.py",),
    ),
    Mutant(
        "OWSM-CTC: prefix positions skip",
        ENCODERS + "prefix.py",
        "torch.cat((valid_mask[:, :p], found.keep_mask), dim=1)",
        "torch.cat((valid_mask[:, :p] & False, found.keep_mask), dim=1)",
        ("tests/encoders/test_e_branchformer_ctc.py",),
    ),
    Mutant(
        "OWSM-CTC: gates count the prefix as audio",
        ENCODERS + "prefix.py",
        "            valid_mask[:, p:],\n            None if before",
        "            valid_mask[:, : valid_mask.size(1) - p],\n            None if before",
        (ALONE + "[e_branchformer_ctc packed]",),
    ),
    # the fast form
    Mutant(
        "stale fast form after weights were loaded",
        ENCODERS + "fast_form.py",
        "        if self._loaded.on:\n",
        "        if self._loaded is None:\n",
        ("tests/encoders/test_fast.py",),
    ),
    Mutant(
        "training keeps the fast form",
        ENCODERS + "fast_form.py",
        "        if mode:\n            self._fast = None\n",
        "",
        ("tests/encoders/test_fast.py",),
    ),
    Mutant(
        "fast form: positions in order of the packed frames",
        ENCODERS + "fast/layout.py",
        'index.positions[0] if frames.context != "packed" else None',
        'index.positions[0] if frames.context == "full" else None',
        (FAST + "[conformer packed_original]",),
    ),
    Mutant(
        "fast form: keys of the utterance before",
        ENCODERS + "fast/layout.py",
        "keys = [slice(b * length, b * length + n) for b, n in enumerate(lengths)]",
        "keys = [slice(max(0, b * length - 1), b * length + n) for b, n in enumerate(lengths)]",
        (FAST + "[transformer full]",),
    ),
    # heads and losses
    Mutant(
        "factorized head: blank and label swapped",
        METHOD + "ctc.py",
        "torch.cat((F.logsigmoid(blank), F.logsigmoid(-blank) + ",
        "torch.cat((F.logsigmoid(-blank), F.logsigmoid(blank) + ",
        (LOSSES,),
    ),
    Mutant(
        "the head of a layer is not used",
        METHOD + "ctc.py",
        "key = str(layer_idx)",
        'key = ""',
        ("tests/method/test_ctc.py",),
    ),
    Mutant(
        "skipped frames may become labels",
        METHOD + "ctc.py",
        "        out[..., BLANK] = blank.log().to(kept.dtype)\n",
        "        out[..., BLANK] = (1.0 - blank).log().to(kept.dtype)\n",
        ("tests/method/test_ctc.py",),
    ),
    Mutant(
        "blank-regularised CTC prices blanks",
        METHOD + "blank_regularized.py",
        "stay = -self_loop_penalty * is_label.float()",
        "stay = -self_loop_penalty * torch.ones_like(is_label).float()",
        (LOSSES,),
    ),
    Mutant(
        "blank-regularised CTC: no blank needed between equal labels",
        METHOD + "blank_regularized.py",
        "is_label[2:] & (states[:, 2:] != states[:, :-2])",
        "is_label[2:].expand_as(states[:, 2:])",
        (LOSSES,),
    ),
    Mutant(
        "distillation: the teacher is not detached",
        TRAINING + "distillation.py",
        "teacher = teacher_log_probs.detach().float()",
        "teacher = teacher_log_probs.float()",
        ("tests/training/test_distillation.py",),
    ),
    Mutant(
        "distillation: labels not weighted by the teacher's non-blank",
        TRAINING + "distillation.py",
        "return blank, t_blank[..., 1].exp() * label",
        "return blank, label",
        (LOSSES,),
    ),
    Mutant(
        "consistency: a view is not detached",
        TRAINING + "consistency.py",
        "forth = (a.detach().exp() * (a.detach() - b)).sum(-1)",
        "forth = (a.exp() * (a - b)).sum(-1)",
        (LOSSES,),
    ),
    Mutant(
        "distillation: its weight is ignored",
        TRAINING + "model.py",
        "total + self.kd_blank_weight * blank + self.kd_label_weight * label",
        "total + blank + label",
        MODEL,
    ),
    Mutant(
        "train_skip_prob is ignored: always gated",
        ENCODERS + "base.py",
        "of_first_process(torch.rand(())) < self.train_skip_prob",
        "of_first_process(torch.rand(())) < 2.0",
        ("tests/encoders/test_conformer.py",),
    ),
    Mutant(
        "validation is gated as training is",
        TRAINING + "model.py",
        "skip=None if self.training else False, intermediates=True",
        "skip=None, intermediates=True",
        MODEL,
    ),
    # decoding
    Mutant(
        "greedy: repeats are not merged",
        "espnet_layerskip/decoding/greedy.py",
        "    starts[:, 1:] &= labels[:, 1:] != labels[:, :-1]\n",
        "",
        ("tests/decoding/test_greedy.py",),
    ),
    Mutant(
        "frame drop loses a repeat: no blank stays",
        "espnet_layerskip/decoding/frame_drop.py",
        "    starts[1:] |= starts[:-1].copy()  # the first of a run\n",
        "",
        ("tests/decoding/test_frame_drop.py", "tests/decoding/test_prefix_beam.py"),
    ),
    Mutant(
        "prefix beam: repeat guard gone",
        "espnet_layerskip/decoding/beam.py",
        "np.where(same, self.blank[:, None], total[:, None])",
        "np.where(same & False, self.blank[:, None], total[:, None])",
        ("tests/decoding/test_prefix_beam.py",),
    ),
    Mutant(
        "segments: hop off by one frame",
        "espnet_layerskip/inference/segments.py",
        "hop, left, begin = self.hop // self.frame, None, 0",
        "hop, left, begin = self.hop // self.frame + 1, None, 0",
        ("tests/inference/test_segments.py",),
    ),
    # around the model
    Mutant(
        "calibration ignored",
        "espnet_layerskip/inference/calibration.py",
        "wanted = settings.over(found.settings).resolved(encoder)",
        "wanted = settings.resolved(encoder)",
        ("tests/inference/test_calibration.py",),
    ),
    Mutant(
        "calibration of other weights is used",
        "espnet_layerskip/inference/calibration.py",
        "if found.sha256 != file_digest(model_file):",
        "if not found.sha256:",
        ("tests/inference/test_calibration.py",),
    ),
    Mutant(
        "evidence by utterance instead of speaker",
        "espnet_layerskip/evaluation/evidence.py",
        "    if speaker.max() > 0:\n",
        "    if speaker.max() < 0:\n",
        ("tests/evaluation/test_evidence.py",),
    ),
    Mutant(
        "cache key without a module that decodes",
        "espnet_layerskip/evaluation/cache.py",
        '_NOT_DECODING = ("bin", ',
        '_NOT_DECODING = ("bin", "encoders", ',
        ("tests/evaluation/test_cache.py",),
    ),
    Mutant(
        "exported gate: below the threshold skips",
        "espnet_layerskip/export/gated.py",
        'above = g.op("Greater", blank_prob, threshold)',
        'above = g.op("Less", blank_prob, threshold)',
        ("tests/export/test_model.py",),
    ),
    Mutant(
        "exported gate: the extension is one frame short",
        "espnet_layerskip/export/gated.py",
        'g.op("Add", left, g.ints(1))',
        "left",
        ("tests/export/test_model.py",),
    ),
    Mutant(
        "a file is written in place, not in one step",
        "espnet_layerskip/files.py",
        'partial = path.with_name(f".{start}.{HOST}-{os.getpid()}-{get_native_id()}.partial")',
        "partial = path",
        ("tests/test_files.py",),
    ),
]
