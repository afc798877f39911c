#!/usr/bin/env bash
# The trainings behind RESULTS.md, each resumable; finished ones are skipped.
#   local/study.sh [--seeds "1 2"] [--only "conformer layerskip"]
# Two trunks for each seed hold the epochs of warm-up and constant learning rate: the stock twin's
# (plain head) and ours (factorized head, no skipping, no distillation). The systems branch off
# from the trunk with their head and differ in the decay, with the same data and number of updates.
set -e -u -o pipefail

seeds="1 2"         # random seeds
only="conformer layerskip layerskip_nokd layerskip_plain"  # systems to train
trunk_epochs=10     # shared epochs
python=python3      # Python with the package installed
. utils/parse_options.sh

train() {  # <tag> <config> <arguments> [<tag of the trunk>]
    local dir=exp/asr_$1
    if [ -e "${dir}/valid.cer_ctc.ave.pth" ]; then
        return 0
    fi
    if [ -n "${4:-}" ] && [ ! -e "${dir}/checkpoint.pth" ]; then
        mkdir -p "${dir}"
        cp "exp/asr_$4"/*epoch.pth "exp/asr_$4/checkpoint.pth" "${dir}"
    fi
    ./run.sh --python "${python}" --stage 11 --stop_stage 11 --asr_config "$2" --asr_tag "$1" \
        --asr_args "$3"
}

stock=conf/train_asr_conformer.yaml
ours=conf/train_asr_layerskip.yaml
no_kd="--model_conf kd_blank_weight=0.0 --model_conf kd_label_weight=0.0"
for seed in ${seeds}; do
    for system in ${only}; do
        tag=${system}_seed${seed}
        plain=trunk_plain_seed${seed}
        factorized=trunk_factorized_seed${seed}
        common="--seed ${seed}"
        case ${system} in
            conformer | layerskip_plain)
                train "${plain}" "${stock}" "${common} --max_epoch ${trunk_epochs}" ;;
            layerskip | layerskip_nokd)
                train "${factorized}" "${ours}" "${common} --max_epoch ${trunk_epochs} ${no_kd} \
                    --encoder_conf train_skip_prob=0.0" ;;
        esac
        case ${system} in
            conformer) train "${tag}" "${stock}" "${common}" "${plain}" ;;
            layerskip) train "${tag}" "${ours}" "${common}" "${factorized}" ;;
            layerskip_nokd) train "${tag}" "${ours}" "${common} ${no_kd}" "${factorized}" ;;
            layerskip_plain) train "${tag}" "${ours}" \
                "${common} --model_conf ctc_head=plain" "${plain}" ;;
            *) echo "$0: unknown system '${system}' in --only" >&2; exit 1 ;;
        esac
    done
done
