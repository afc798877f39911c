#!/usr/bin/env bash
# Generate HYBRID.md: joint CTC/attention with skipping on and off, on the twins of
# conf/tuning/train_asr_{conformer,layerskip}_aed.yaml, and word times of these, of the CTC Conformer and of
# the shipped model. Word times need: pip install espnet-ctc-segmentation. What is not trained is left out.
# The numbers are in JSON files in exp/hybrid. Run it on an idle machine.
set -e -u -o pipefail

stock=exp/asr_conformer_aed_seed1   # ESPnet's Conformer with an attention decoder
ours=exp/asr_layerskip_aed_seed1    # the same with a gate, trained with skipping
ctc=exp/asr_conformer_seed1         # the CTC Conformer (characters) that both start from
data=dump/raw/test                  # where to measure
output=exp/hybrid                   # folder of the numbers
page=HYBRID.md                      # the page
python=python3                      # Python with the package installed
repeats=5                           # timed passes; 0 = no timing
max_timed=20                        # utterances of a timed pass
. utils/parse_options.sh
. ./path.sh

shipped=pretrained/an4_layerskip.zip
aligned=(--row "shipped, as calibrated" "${shipped}"
    --row "shipped, threshold 0.9" "${shipped}" threshold=0.9 "extension=0,0")
mkdir -p "${output}"
gate() {  # <experiment> <folder>: the same weights; the gate asks ESPnet's intermediate CTC, untrained for skipping
    "${python}" -m espnet_layerskip.recipe.add_gate "$1" "$2" \
        "gate_layer_idx=[4]" "spike_extension=[0,0]" skip_context=full
}
if [ -e "${ctc}/valid.cer_ctc.ave.pth" ]; then
    gate "${ctc}" "${output}/ctc_gated"
    for n in 0 1; do
        aligned+=(--row "stock CTC weights (characters), our encoder, extension ${n}" "${output}/ctc_gated" "extension=${n},${n}")
    done
fi
if [ -e "${stock}/valid.acc.ave.pth" ] && [ -e "${ours}/valid.acc.ave.pth" ]; then
    gated=${output}/stock_gated
    gate "${stock}" "${gated}"
    "${python}" local/hybrid.py --data "${data}" --output "${output}/hybrid.json" \
        --repeats "${repeats}" --max-timed "${max_timed}" \
        --row "stock" "${stock}" \
        --row "stock weights, our encoder, skipping off" "${gated}" threshold=off \
        --row "stock weights, our encoder, skipping on" "${gated}" \
        --row "ours, skipping off" "${ours}" threshold=off \
        --row "ours, skipping on" "${ours}" \
        --row "ours, skipping off, blank frames dropped" "${ours}" threshold=off drop=0.99 \
        --row "ours, skipping on, blank frames dropped" "${ours}" drop=0.99
    aligned+=(--row "stock weights (joint), our encoder" "${gated}" --row "ours (joint)" "${ours}"
        --row "ours (joint), extension 1" "${ours}" "extension=1,1")
fi
"${python}" local/align.py --data "${data}" --output "${output}/align.json" "${aligned[@]}"
"${python}" local/hybrid_page.py --search "${output}/hybrid.json" --align "${output}/align.json" --output "${page}"
echo "$0: see ${page}"
