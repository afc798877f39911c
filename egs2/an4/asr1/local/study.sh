#!/usr/bin/env bash
# The trainings behind RESULTS.md, each resumable; finished ones are skipped.
#   local/study.sh [--seeds "1 2"] [--only "conformer layerskip"]
# The systems of a seed share a trunk: the epochs of warm-up and constant learning rate, trained
# at full depth with the factorized head, both CTC losses and light SpecAugment. From there each
# goes its own way through the decay, with the same data and number of updates.
set -e -u -o pipefail

seeds="1 2"         # random seeds
only="conformer layerskip layerskip_nokd layerskip_plain"  # systems to train
trunk_epochs=9      # shared epochs
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
light="--specaug_conf num_time_mask=2 --specaug_conf freq_mask_width_range=[0,6]"
for seed in ${seeds}; do
    trunk=trunk_seed${seed}
    train "${trunk}" "${ours}" "--seed ${seed} --max_epoch ${trunk_epochs} ${no_kd} ${light} \
        --encoder_conf train_skip_prob=0.0"
    for system in ${only}; do
        tag=${system}_seed${seed}
        case ${system} in
            conformer) train "${tag}" "${stock}" "--seed ${seed}" "${trunk}" ;;
            layerskip) train "${tag}" "${ours}" "--seed ${seed}" "${trunk}" ;;
            layerskip_nokd) train "${tag}" "${ours}" "--seed ${seed} ${no_kd}" "${trunk}" ;;
            layerskip_plain) train "${tag}" "${ours}" \
                "--seed ${seed} --model_conf ctc_head=plain" "${trunk}" ;;
            *) echo "$0: unknown system '${system}' in --only" >&2; exit 1 ;;
        esac
    done
done
