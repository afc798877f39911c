"""A retrofit for people: before and after, what it took, what would make it better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espnet_layerskip.evaluation.environment import describe
from espnet_layerskip.evaluation.scoring import Interval
from espnet_layerskip.evaluation.tables import bullets, folded, folded_command, markdown_table, page
from espnet_layerskip.method.settings import SkipSettings


def retrofit_page(record: Mapping[str, Any]) -> str:
    """Return the page of a record, as the verb ``retrofit`` writes it."""
    found, budget, work = record["found"], record["budget"], record["training"]
    rate = budget["metric"].upper() if budget["labels"] else "differs"
    header = ["model", f"{rate} %", "against full depth [95 %]", "skipped %", "GFLOPs", "settings"]
    table = [
        [
            row["name"],
            f"{row['rate']:.2f}",
            str(Interval(**row["increase"])) if n else "",
            f"{100 * row['skip_ratio']:.1f}",
            f"{row['gflops']:.3f}",
            row["settings"],
        ]
        for n, row in enumerate(found["rows"])
    ]
    facts = [
        *describe(record["environment"]),
        f"- model: {record['model']} ({record['checkpoint']}), {record['encoder']}, gates after "
        f"{record['gates']} of {record['layers']} layers",
        f"- learnt from: {record['learnt_from']}",
        f"- judged on: {record['dev']['utterances']} utterances of {record['dev']['name']}, "
        f"{'with' if budget['labels'] else 'without'} transcripts",
        f"- budget: {record['budget_text']}",
    ]
    if work["epochs"]:
        elsewhere = "; the teacher ran in other processes" if work.get("workers") else ""
        facts.append(
            f"- training: {work['epochs']} epochs, {work['updates']:.0f} updates, "
            f"{work['seconds']:.0f} s ({work['cpu_seconds']:.0f} s of CPU time{elsewhere})"
        )
    how = (
        "GFLOPs: the encoder's for a second of audio. Against full depth: points over the stock "
        "model at full depth."
    )
    if not budget["labels"]:
        how += (
            " Differs: words (or characters) that are not those of the stock model at full depth; "
            "an error rate rises by no more points than that."
        )
    return page(
        "Retrofit",
        facts,
        verdict(record),
        markdown_table(header, table),
        how,
        bullets([f"WARNING: {line}" for line in found["warnings"]]),
        "To do better:\n\n" + bullets(advice(record)),
        folded("All settings that were tried", sweep_table(found)),
        folded_command(record["command"]),
    )


def verdict(record: Mapping[str, Any]) -> str:
    """Return what came of it in one line."""
    found, rows = record["found"], record["found"]["rows"]
    before, after = rows[0], rows[-1]
    share = 100.0 * after["gflops"] / before["gflops"] if before["gflops"] else 100.0
    cost = f"{after['increase']['difference']:+.2f} points, encoder at {share:.0f} % of the FLOPs"
    if found["kept_by"] == "nothing":
        return (
            "**Rejected**: no setting keeps the budget. Nearest: "
            f"{100 * after['skip_ratio']:.1f} % of the frames skip, {cost}."
        )
    return f"**Kept** by its {found['kept_by']}: {100 * after['skip_ratio']:.1f} % skip, {cost}."


def advice(record: Mapping[str, Any]) -> list[str]:
    """Return what would make it faster or more accurate, most effective first."""
    found, work, first = record["found"], record["training"], min(record["gates"])
    layers, lines = record["layers"], []
    if not work["epochs"]:
        lines.append(
            "the weights are the stock model's: a short training (--epochs 4; on untranscribed "
            "audio with --labels none) adapts the upper layers to skipped frames"
        )
    elif not work["transcripts"]:
        lines.append("it learnt from the model alone: with transcripts a CTC loss comes beside it")
    if record["new_heads"]:
        lines.append(
            f"layers {record['new_heads']} had no trained CTC, and their heads are new: ESPnet's "
            f"interctc_layer_idx: {record['new_heads']} with interctc_weight: 0.3, in the training "
            "of the model itself, makes better ones"
        )
    if found["kept_by"] == "nothing" and work["epochs"]:
        lines.append("more epochs (--epochs), or a gate further up (--gates)")
    if found["kept_by"] != "upper bound":
        lines.append("a larger development set (--dev): the interval decides, and it is wide")
    most = max((trial["skip_ratio"] for trial in found["sweep"]), default=0.0)
    lines.append(
        f"the gates find at most {100 * most:.0f} % blank frames: fewer tokens a second (word "
        "pieces instead of characters) make more"
    )
    lines.append(
        f"the subsampling and layers 1 to {first} run on every frame; of the layers' work at most "
        f"{100 * most * (layers - first) / layers:.0f} % can be skipped: an earlier gate saves more"
    )
    return lines


def sweep_table(found: Mapping[str, Any]) -> str:
    """Return the settings that were tried, cheapest first."""
    rows = [
        [
            SkipSettings.from_json(trial["settings"]).describe(),
            f"{trial['rate']:.2f}",
            str(Interval(**trial["increase"])),
            f"{trial['excess']['high']:+.2f}",
            f"{100 * trial['skip_ratio']:.1f}",
            ("yes" if trial["fits"] else "no") + (", chosen" if trial == found["chosen"] else ""),
        ]
        for trial in sorted(found["sweep"], key=lambda t: t["encoder_flops"])
    ]
    header = [
        *("settings", "rate %", "against full depth [95 %]", "limit against budget"),
        *("skipped %", "fits"),
    ]
    return markdown_table(header, rows)
