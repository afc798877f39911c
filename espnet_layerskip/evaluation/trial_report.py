"""A trial for people: one sentence first, then a short table and what lies behind it."""

from __future__ import annotations

from statistics import median
from textwrap import fill

from espnet_layerskip.evaluation.open_model import OpenedModel
from espnet_layerskip.evaluation.tables import aligned, threads
from espnet_layerskip.evaluation.trial import ENCODER, FULL, SKIP, STOCK, WAVE, TrialResult
from espnet_layerskip.evaluation.trial_settings import MAX_DISAGREEMENT, MAX_INCREASE

WIDTH = 96
FASTER = 1.03  # ratios nearer to 1 are no gain
WRONG_TEXT = 90.0  # percent; no trained model is so bad on the kind of speech that it knows
CHART = "docs/when_does_it_pay.md in the repository"
RETROFIT = "espnet-layerskip retrofit --model {model} --data TRAINING_DATA_DIR --output DIR"


def unsupported(opened: OpenedModel) -> str:
    """Return what to say of a model whose encoder has no class of ours."""
    return _paragraph(
        f"Nothing to gain here: {opened.no_ours}. So the encoder has neither a fast form nor gates."
    )


def trial_page(result: TrialResult) -> str:
    """Return the verdict, the table and the rest, as plain text."""
    behind = [p if p.startswith("espnet-layerskip ") else _paragraph(p) for p in _behind(result)]
    parts = [_paragraph(verdict(result)), table(result), *behind]
    notes = "\n".join(_paragraph(f"- {note}", "  ") for note in _notes(result))
    return "\n\n".join([*parts, notes])


def verdict(result: TrialResult) -> str:
    """Return the answer in one sentence."""
    opened, choice = result.opened, result.choice
    fast, same = result.speedup(ENCODER, FULL)[0], ", with the same transcripts"
    alone = (
        f"The exact fast form alone makes this model's encoder {fast:.2f} times as fast as "
        f"ESPnet's class{'' if result.differing or result.differing is None else same}"
    )
    if opened.no_fast:
        alone = f"Nothing to gain without training: a {opened.stock_class} has no fast form here"
    if choice is None:
        return f"{alone}; it cannot skip as it is: {_why_not(result)}."
    more = result.speedup(ENCODER, SKIP, FULL)[0]
    if more < FASTER:
        return (
            f"{alone}; skipping does not pay as it is on speech of these lengths "
            f"({more:.2f} times as fast): {_change(result)}."
        )
    both, whole = result.speedup(ENCODER, SKIP)[0], result.speedup(WAVE, SKIP)[0]
    parts = f": {fast:.2f} by the exact fast form and {more:.2f} by skipping on top"
    return (
        f"This model's encoder runs {both:.2f} times as fast as ESPnet's class (wave to text "
        f"{whole:.2f}){' by skipping' if opened.no_fast else parts}, {_cost(result)}."
    )


def table(result: TrialResult) -> str:
    """Return times and errors of ESPnet's class, full depth and skipping as aligned columns."""
    labelled, metric = result.data.labelled, result.metric.upper()
    rows = [["", *(f"{scope}" for scope in result.times)]]
    rows[0] += [f"{metric} %" if labelled else "tokens that differ %", "frames skipped %"]
    names = {
        STOCK: f"ESPnet's {result.opened.stock_class}",
        FULL: "our class, no fast form" if result.opened.no_fast else "exact fast form",
        SKIP: "with skipping",
    }
    rates: dict[str, tuple[str, str]] = {}
    if result.trials:
        full = result.trials[0]
        stock = f"{result.stock_rate:.2f}" if result.stock_rate is not None else "-"
        rates = {STOCK: (stock, "0"), FULL: (f"{full.rate:.2f}", "0")}
    if result.choice is not None:
        trial = result.choice.trial
        rates[SKIP] = (f"{trial.rate:.2f}", f"{100 * trial.skip_ratio:.0f}")
    for row in result.times[ENCODER]:
        cells = [_ratio(result, scope, row) for scope in result.times]
        rows.append([names[row], *cells, *rates.get(row, ("-", "0"))])
    return "\n".join(aligned(rows))


def _ratio(result: TrialResult, scope: str, row: str) -> str:
    """Return times as fast as ESPnet's class, and milliseconds for a second of audio."""
    ms = 1e3 * median(result.times[scope][row]) / result.timed_seconds
    return f"{result.speedup(scope, row)[0]:.2f} x {ms:6.1f} ms"


def _cost(result: TrialResult) -> str:
    """Return what skipping costs, in words and figures."""
    assert result.choice is not None
    change, metric = _change(result), result.metric.upper()
    if result.choice.kept_by == "upper limit":
        return f"at no loss that can be seen: {change}"
    if result.data.labelled and result.choice.kept_by == "measured":
        return f"at about the same {metric}: {change}"
    sure = result.data.labelled and result.choice.trial.increase.low > 0.0
    return f"but it {'costs' if sure else 'may cost'} accuracy: {change}"


def _change(result: TrialResult) -> str:
    """Return the error rate at full depth and with skipping."""
    assert result.choice is not None
    trial, by = result.choice.trial, result.choice.trial.increase
    if not result.data.labelled:
        interval = f"95 % interval {by.low:.2f} to {by.high:.2f}"
        return f"{trial.rate:.2f} % of the tokens differ from full depth ({interval})"
    rates = f"{result.metric.upper()} {result.trials[0].rate:.2f} % -> {trial.rate:.2f} %"
    interval = f"95 % interval {by.low:+.2f} to {by.high:+.2f}"
    return f"{rates} ({by.difference:+.2f} points, {interval})"


def _why_not(result: TrialResult) -> str:
    opened, trained = result.opened, ", ".join(map(str, result.opened.trained))
    if opened.no_gates:
        return opened.no_gates
    if not opened.trained:
        return "no intermediate CTC head was trained, see interctc_layer_idx and interctc_weight"
    if not opened.usable:
        return (
            f"its trained heads sit after layers {trained} of {opened.num_layers}, "
            "too deep to save anything"
        )
    return f"the heads after layers {trained} of {opened.num_layers} call hardly any frame blank"


def _behind(result: TrialResult) -> list[str]:
    """Return paragraphs: the setting, the ceiling, and what training could add."""
    opened, choice, ceiling = result.opened, result.choice, result.ceiling
    found = []
    if choice is not None:
        how = choice.trial.settings.describe()
        rule = {
            "upper limit": f"the cheapest whose upper limit is within {_budget(result)}",
            "measured": "none has its upper limit within "
            f"{_budget(result)}; this is the cheapest whose measured value is",
            "nothing": f"none is within {_budget(result)}; this one saves most for what it costs",
        }[choice.kept_by]
        text = f"Setting: {how} (of {len(result.trials) - 1} tried: {rule})."
        own = opened.own_settings
        for trial in result.trials[1:]:
            if trial.settings == own and trial != choice.trial:
                text += (
                    f" The model's own, {own.describe()}: {trial.rate:.2f} %, "
                    f"{100 * trial.skip_ratio:.0f} % skipped."
                )
        found.append(text)
    if ceiling is not None:
        k = ceiling.layer
        text = (
            f"Ceiling: {100 * ceiling.blank:.0f} % of the frames are blank. Of the encoder's "
            f"arithmetic {100 * ceiling.stem:.0f} % is the subsampling and "
            f"{100 * ceiling.lower:.0f} % layers 1 to {k} of {ceiling.layers}, which a gate after "
            f"layer {k} cannot save: if all blank frames skipped, the rest would be "
            f"{100 * ceiling.left:.0f} % of what full depth takes"
        )
        if choice is not None:
            taken = 100.0 / result.speedup(ENCODER, SKIP, FULL)[0]
            left = choice.trial.encoder_flops / max(1, result.trials[0].encoder_flops)
            text += (
                f". As set, the arithmetic is {100 * left:.0f} % and the time "
                f"{taken:.0f} % (each operation has a fixed cost: longer utterances gain more)"
            )
        found.append(f"{text}.")
    if ceiling is not None and not opened.no_gates:
        what = "heads for gates" if not opened.trained else "the model for skipping"
        found.append(
            f"Training could bring it nearer to that. To train {what}, with or without transcripts:"
        )
        found.append(RETROFIT.format(model=opened.source))
    return found


def _budget(result: TrialResult) -> str:
    if result.data.labelled:
        return f"+{MAX_INCREASE:g} % (relative) of full depth's {result.metric.upper()}"
    return f"{MAX_DISAGREEMENT:g} % of the tokens"


def _notes(result: TrialResult) -> list[str]:
    opened, env, trials = result.opened, result.environment, result.trials
    found = [
        f"Data: {result.data.describe()}.",
        *(f"{n[0].upper()}{n[1:]}." for n in result.data.notes),
    ]
    if result.choice is not None:
        found.append(
            "The setting was chosen on this same data, so its figures are optimistic: confirm "
            "them on other data before you rely on them."
        )
    if trials:
        search = "Decoding is greedy CTC in all rows"
        decoder = ": the attention decoder is not used" if opened.has_decoder else ""
        found.append(f"{search}{decoder}; {WAVE} is from samples in memory.")
        if result.differing:
            found.append(
                f"Full depth differs from ESPnet's class in {result.differing} transcripts, which "
                "rounding can do; please report it if these are many."
            )
        if result.data.labelled and trials[0].rate > WRONG_TEXT:
            found.append(
                f"An error rate of {trials[0].rate:.0f} % at full depth says that the transcripts "
                "are written in another way than the model's (case, words), or are of other speech."
            )
    else:
        found.append("Without a CTC head nothing was decoded: times only.")
    if opened.no_fast:
        found.append(f"No fast form: {opened.no_fast}.")
    row = SKIP if result.choice is not None else FULL
    _, low, high = result.speedup(ENCODER, row)
    found.append(
        f"Times: ms for a second of audio; x is times as fast as ESPnet's class. "
        f"{threads(env['num_threads'])}, "
        f"medians of interleaved passes over {result.timed_seconds:.0f} s of audio, one utterance "
        f"at a time; the encoder's {result.speedup(ENCODER, row)[0]:.2f} ranged from {low:.2f} to "
        f"{high:.2f}."
    )
    if result.ceiling is not None:
        found.append(f"What other lengths, widths and gates gain: {CHART}.")
    load, cores = (env["load_after"] or env["load_before"] or [0.0])[0], env["usable_cores"] or 1
    if load > cores:
        found.append(
            f"The machine is busy (load {load:.0f} on {cores} cores): repeat this on an idle one."
        )
    return found


def _paragraph(text: str, hang: str = "") -> str:
    """Return text in lines; a number stays with its unit."""
    kept = text.replace(" %", "\0%").replace(" ms", "\0ms").replace(" s ", "\0s ")
    lines = fill(
        kept, WIDTH, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False
    )
    return lines.replace("\0", " ")
