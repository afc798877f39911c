"""Transcripts in the page: side by side, with what skipping changed, and audio to listen to."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import soundfile

from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.report.changes import (
    BETTER,
    SAME,
    WORSE,
    Change,
    confusion,
    find_changes,
    marked_words,
)
from espnet_layerskip.evaluation.report.traces import Trace

AUDIO_BYTES = 2_000_000  # of FLAC in the page; what does not fit is left out and said so


class AudioBudget:
    """Audio players for the page, until there is enough audio in it."""

    def __init__(self, limit: int = AUDIO_BYTES):
        self.left = limit

    def player(self, speech: Speech) -> str:
        """Return a player with the samples in it as FLAC, or a remark where it is too much."""
        buffer = io.BytesIO()
        soundfile.write(buffer, speech.samples, speech.rate, format="FLAC", subtype="PCM_16")
        data = buffer.getvalue()
        if len(data) > self.left:
            return "<p><small>Its audio is left out to keep this page small.</small></p>"
        self.left -= len(data)
        source = base64.b64encode(data).decode()
        label = escape(f"{speech.utt_id}, {speech.seconds:.1f} s", quote=True)
        return (
            f'<audio controls preload="metadata" aria-label="{label}" '
            f'src="data:audio/flac;base64,{source}"></audio>'
        )


def sides(ref: str, texts: Sequence[tuple[str, str]]) -> str:
    """Return reference and transcripts side by side; wrong words are underlined."""
    parts = [f"<div><dt>reference</dt><dd>{escape(ref)}</dd></div>"]
    for label, text in texts:
        words = " ".join(
            f'<span class="wrong">{escape(word)}</span>' if wrong else escape(word)
            for word, wrong in marked_words(ref, text)
        )
        parts.append(f"<div><dt>{escape(label)}</dt><dd>{words or '(nothing)'}</dd></div>")
    return f'<dl class="sides">{"".join(parts)}</dl>'


def changed_texts(traces: Sequence[Trace], speech: Mapping[str, Speech], audio: AudioBudget) -> str:
    """Return what skipping changed: counts, then every changed utterance side by side."""
    changes = find_changes(traces)
    table = confusion(traces)
    effects = {e: sum(c.effect == e for c in changes) for e in (BETTER, SAME, WORSE)}
    total = len(traces)
    rows = "".join(
        f'<tr><th scope="row">off: {_right(off)}</th>'
        + "".join(f'<td class="number">{table[off, on]}</td>' for on in (True, False))
        + "</tr>"
        for off in (True, False)
    )
    intro = (
        f"<p>Skipping changed the text of {len(changes)} of {total} utterances: "
        f"{effects[BETTER]} for the better, {effects[SAME]} with as many word errors, "
        f"{effects[WORSE]} for the worse. Look whether the damage has a pattern: words lost "
        "(a gate that drops speech) or letters changed (upper layers that miss context).</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Utterances right and wrong">'
        "<table><caption>Utterances without a word error, skipping off against on</caption>"
        '<thead><tr><td></td><th scope="col" class="number">on: right</th>'
        '<th scope="col" class="number">on: wrong</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    return intro + "".join(
        _change(change, speech[change.trace.utt_id], audio) for change in changes
    )


def _right(right: bool) -> str:
    return "right" if right else "wrong"


def _change(change: Change, speech: Speech, audio: AudioBudget) -> str:
    trace = change.trace
    texts = [
        (f"skipping off, word errors: {change.errors_off}", trace.text_off),
        (f"skipping on, word errors: {change.errors_on}", trace.text_on),
    ]
    return (
        f'<article class="change"><h4>{escape(trace.utt_id)}: {change.effect}</h4>'
        f"{sides(trace.ref, texts)}{audio.player(speech)}</article>"
    )
