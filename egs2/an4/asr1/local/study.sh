#!/usr/bin/env bash
# The trainings behind RESULTS.md, each resumable; finished ones are skipped.
#   local/study.sh [--seeds "1 2"] [--only "conformer layerskip"]
# Systems that share a loss share the first epochs (warm-up and constant learning rate) of
# a seed and differ from there through the decay: a twin of each other, at less cost.
set -e -u -o pipefail

seeds="1 2"         # random seeds
only="conformer layerskip layerskip_nokd layerskip_plain"  # systems to train
trunk_epochs=9      # shared epochs
python=python3      # Python with the package installed
asr_args=           # further arguments of asr_train
. utils/parse_options.sh

train() {  # <tag> <config> <arguments> [<tag of the trunk>]
    local dir=exp/asr_$1
    if [ -e "${dir}/valid.cer_ctc.ave.pth" ] || [ -e "${dir}/.done" ]; then
        return 0
    fi
    if [ -n "${4:-}" ] && [ ! -e "${dir}/checkpoint.pth" ]; then
        mkdir -p "${dir}"
        cp "exp/asr_$4"/*epoch.pth "exp/asr_$4/checkpoint.pth" "${dir}"
    fi
    ./run.sh --python "${python}" --stage 11 --stop_stage 11 --asr_config "$2" --asr_tag "$1" \
        --asr_args "$3 ${asr_args}"
    touch "${dir}/.done"
}

ours=conf/train_asr_layerskip.yaml
no_kd="--model_conf kd_blank_weight=0.0 --model_conf kd_label_weight=0.0"
for seed in ${seeds}; do
    for system in ${only}; do
        case ${system} in
            conformer | layerskip_plain)
                trunk=trunk_plain_seed${seed}
                train "${trunk}" conf/train_asr_conformer.yaml \
                    "--seed ${seed} --max_epoch ${trunk_epochs}" ;;
            layerskip | layerskip_nokd)
                trunk=trunk_factorized_seed${seed}
                train "${trunk}" "${ours}" "--seed ${seed} --max_epoch ${trunk_epochs} \
                    ${no_kd} --encoder_conf train_skip_prob=0.0" ;;
            *)
                echo "$0: unknown system '${system}' in --only" >&2
                exit 1 ;;
        esac
        case ${system} in
            conformer) train "conformer_seed${seed}" conf/train_asr_conformer.yaml \
                "--seed ${seed}" "${trunk}" ;;
            layerskip) train "layerskip_seed${seed}" "${ours}" "--seed ${seed}" "${trunk}" ;;
            layerskip_nokd) train "layerskip_nokd_seed${seed}" "${ours}" \
                "--seed ${seed} ${no_kd}" "${trunk}" ;;
            layerskip_plain) train "layerskip_plain_seed${seed}" "${ours}" \
                "--seed ${seed} --model_conf ctc_head=plain" "${trunk}" ;;
        esac
    done
done
