#!/usr/bin/env bash
# The trainings behind RESULTS.md, each resumable; finished ones are skipped.
#   local/study.sh [--seeds "1 2"] [--only "conformer layerskip"]
# A trunk for each seed and kind of head holds the epochs of warm-up and constant learning rate: the
# stock twin's (plain head), and one with the factorized head, no skipping and no distillation. The
# systems branch off from the trunk with their head and differ in the decay, with the same data and
# number of updates.
set -e -u -o pipefail

seeds="1 2"         # random seeds
only="conformer layerskip layerskip_nokd layerskip_factorized layerskip_factorized_nokd"  # systems
trunk_epochs=10     # shared epochs
python=python3      # Python with the package installed
. utils/parse_options.sh

train() {  # <tag> <config> <arguments> [<tag of the trunk>]
    local dir=exp/asr_$1
    if [ -e "${dir}/valid.cer_ctc.ave.pth" ]; then
        return 0
    fi
    if [ -n "${4:-}" ]; then
        utils/branch_training.sh "exp/asr_$4" "${dir}"
    fi
    ./run.sh --python "${python}" --stage 11 --stop_stage 11 --asr_config "$2" --asr_tag "$1" \
        --asr_args "$3"
}

stock=conf/train_asr_conformer.yaml
ours=conf/train_asr_layerskip.yaml
factorized=conf/tuning/train_asr_layerskip_factorized.yaml
no_kd="--model_conf kd_blank_weight=0.0 --model_conf kd_label_weight=0.0"
for seed in ${seeds}; do
    for system in ${only}; do
        config=${ours} trunk=trunk_seed${seed} options=
        case ${system} in
            conformer) config=${stock} ;;
            layerskip) ;;
            layerskip_nokd) options=${no_kd} ;;
            layerskip_factorized) config=${factorized} trunk=trunk_factorized_seed${seed} ;;
            layerskip_factorized_nokd)
                config=${factorized} trunk=trunk_factorized_seed${seed} options=${no_kd} ;;
            *) echo "$0: unknown system '${system}' in --only" >&2; exit 1 ;;
        esac
        until_branch="--seed ${seed} --max_epoch ${trunk_epochs}"
        if [ "${config}" = "${factorized}" ]; then
            train "${trunk}" "${factorized}" \
                "${until_branch} ${no_kd} --encoder_conf train_skip_prob=0.0"
        else
            train "${trunk}" "${stock}" "${until_branch}"
        fi
        train "${system}_seed${seed}" "${config}" "--seed ${seed} ${options}" "${trunk}"
    done
done
