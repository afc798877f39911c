#!/usr/bin/env bash
# Give the recipe's stock models gates in three ways, and write a page. Resumable; what is done
# is skipped, and so is a stock model that is not trained yet.
#   local/retrofit.sh [--seeds "1 2 3"] [--kinds "conformer transformer e_branchformer"] [--output RETROFIT.md]
# untrained: as they are. unlabelled: distilled without any transcript. labelled: with transcripts.
set -e -u -o pipefail

seeds="1 2 3"                                   # random seeds of the stock trainings
kinds="conformer transformer e_branchformer"    # stock networks, exp/asr_<kind>_seed<seed>
ways="untrained unlabelled labelled"            # how to retrofit
train=dump/raw/train_nodev_sp                   # audio to learn from
dev=dump/raw/train_dev                          # where the setting is chosen
tests=dump/raw/test                             # the sets that the page shows
output=RETROFIT.md                              # the page
budget=3                                        # percent of the stock model's WER, where dev has transcripts
page_only=false                                 # only write the page of what is there
python=python3                                  # Python with the package installed
. utils/parse_options.sh
. ./path.sh

made() {  # <experiment> <way>: where the retrofitted model is
    local dir
    for dir in "$1_retrofit_$2" "$1_retrofit_$2/rejected"; do
        [ ! -e "${dir}/retrofit.json" ] || echo "${dir}"
    done
}

retrofit() {  # <stock experiment> <way>
    local options=() status=0
    case $2 in
        untrained) options=(--epochs 0 --labels dev) ;;
        unlabelled) options=(--labels none) ;;
        labelled) ;;
        *) echo "$0: unknown way '$2' in --ways" >&2; exit 1 ;;
    esac
    "${python}" -m espnet_layerskip.cli retrofit --model "$1" --data "${train}" --dev "${dev}" \
        --max-wer-increase "${budget}" --output "$1_retrofit_$2" --num-threads 1 ${options[@]+"${options[@]}"} || status=$?
    case ${status} in
        0|4) ;;  # 4: rejected, and kept apart
        1) [ -n "$(made "$1" "$2")" ] || exit 1 ;;  # some of the data could not be used
        *) exit "${status}" ;;
    esac
}

for kind in ${kinds}; do
    for seed in ${seeds}; do
        stock=exp/asr_${kind}_seed${seed}
        if "${page_only}" || [ ! -e "${stock}/valid.cer_ctc.ave.pth" ]; then
            continue
        fi
        for way in ${ways}; do
            retrofit "${stock}" "${way}"
        done
    done
done

pages=()
for kind in ${kinds}; do
    stock=() rows=()
    for seed in ${seeds}; do  # those that were retrofitted in all ways
        exp=exp/asr_${kind}_seed${seed} complete=true
        for way in ${ways}; do
            [ -n "$(made "${exp}" "${way}")" ] || complete=false
        done
        ! "${complete}" || stock+=("${exp}")
    done
    [ ${#stock[@]} -gt 0 ] || continue
    for way in ${ways}; do
        exps=
        for exp in "${stock[@]}"; do
            exps+=${exps:+,}$(made "${exp}" "${way}")
        done
        rows+=(--row "${way}, skipping off" "${exps}" threshold=off
            --row "${way}, as calibrated (as configured where rejected)" "${exps}"
            --row "${way}, extension 0" "${exps}" threshold=0.9 "extension=0,0"
            --row "${way}, extension 1" "${exps}" threshold=0.9 "extension=1,1")
    done
    for test in ${tests}; do
        name=exp/compare/retrofit_${kind}_${test//\//_}
        "${python}" -m espnet_layerskip.bin.compare_exps --data "${test}" --repeats 0 \
            --output "${name}" --cache exp/compare/cache \
            --exp "stock=$(IFS=,; echo "${stock[*]}")" "${rows[@]}"
        pages+=("${name}/compare.json")
    done
done
[ ${#pages[@]} -gt 0 ] || { echo "$0: no stock model is trained yet: run local/study.sh first" >&2; exit 1; }
"${python}" local/retrofit_page.py --output "${output}" "${pages[@]}"
echo "$0: see ${output}"
