#!/usr/bin/env bash
# The trainings behind RESULTS.md, each resumable; finished ones are skipped.
#   local/study.sh [--seeds "1 2"] [--only "conformer layerskip"]
# A trunk for each seed and kind of network holds the epochs of warm-up and constant learning rate,
# without skipping and without distillation: the stock twin's own, and one for each kind that the
# stock twin does not have (another head, stem or unit). The systems branch off from the trunk and
# differ in the decay, with the same data and number of updates.
set -e -u -o pipefail

seeds="1 2"         # random seeds
only="conformer layerskip layerskip_nokd layerskip_factorized layerskip_factorized_nokd"  # systems
trunk_epochs=10     # shared epochs
nbpe=100            # word pieces of the systems that have them; AN4 has 97 words
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
    ./run.sh --python "${python}" --token_type "${unit}" --nbpe "${nbpe}" --feats_normalize "${norm}" \
        --stage 11 --stop_stage 11 \
        --asr_config "$2" --asr_tag "$1" --asr_args "$3"
}

prepare() {  # <config>: token list and statistics of a unit that is not run.sh's own
    if [ -e "exp/asr_stats_raw_en_${unit/#bpe/bpe${nbpe}}_sp/train/text_shape.${unit}" ]; then
        return 0
    fi
    for stage in 5 10; do
        ./run.sh --python "${python}" --token_type "${unit}" --nbpe "${nbpe}" --stage "${stage}" \
            --stop_stage "${stage}" --asr_config "$1"
    done
}

no_kd="--model_conf kd_blank_weight=0.0 --model_conf kd_label_weight=0.0"
packed="--encoder_conf skip_context=packed_original --encoder_conf spike_extension=[2,2]"
packed+=" --encoder_conf train_spike_extensions=[[1,1],[2,2]]"
masks="--specaug_conf num_time_mask=5 --specaug_conf freq_mask_width_range=[0,10]"
reg="--encoder_conf dropout_rate=0.2 --encoder_conf attention_dropout_rate=0.1 ${masks}"
for seed in ${seeds}; do
    for system in ${only}; do
        config=tuning/train_asr_${system%_nokd} unit=char kind='' norm=global_mvn
        case ${system} in
            conformer|layerskip|layerskip_nokd|layerskip_blankreg)
                config=train_asr_${system%_nokd} config=${config%_blankreg} trunk_config=train_asr_conformer ;;
            conformer_word|layerskip_word|layerskip_word_packed|conformer_word_reg|layerskip_word_reg)
                config=${config%_packed} config=${config%_reg} kind=_word unit=word
                trunk_config=tuning/train_asr_conformer_word ;;
            layerskip_factorized|layerskip_factorized_nokd) kind=_factorized trunk_config=${config} ;;
            layerskip_stem32) kind=_stem32 trunk_config=${config} ;;
            layerskip_word_k3|layerskip_word_k3_cr)
                config=${config%_cr} kind=_word_k3 unit=word trunk_config=${config} ;;
            layerskip_word_umvn) kind=_word_umvn unit=word norm=utterance_mvn
                config=tuning/train_asr_layerskip_word_k3 trunk_config=${config} ;;
            layerskip_word_aug) kind=_word_aug unit=word norm=utterance_mvn trunk_config=${config} ;;
            conformer_word_aug) kind=_conformer_word_aug unit=word norm=utterance_mvn trunk_config=${config} ;;
            layerskip_bpe_k3) kind=_bpe_k3 unit=bpe config=tuning/train_asr_layerskip_word_k3 trunk_config=${config} ;;
            layerskip_word_large) kind=_word_large unit=word trunk_config=${config} ;;
            *) echo "$0: unknown system '${system}' in --only" >&2; exit 1 ;;
        esac
        options='' trunk_options=''
        [[ ${system} != *_umvn ]] || options="--specaug_conf replace_with_zero=false" trunk_options=${options}
        [[ ${system} != *_nokd ]] || options=${no_kd}
        [[ ${system} != *_packed ]] || options=${packed}
        [[ ${system} != *_blankreg ]] || options="--model_conf self_loop_penalty=2.0"
        [[ ${system} != *_cr ]] || options="--model_conf consistency_weight=0.2 ${masks}"
        [[ ${system} != *_reg ]] || options=${reg}
        [[ ${trunk_config} = *conformer* ]] \
            || trunk_options+=" ${no_kd} --encoder_conf train_skip_prob=0.0"
        trunk=trunk${kind}_seed${seed}
        prepare "conf/${trunk_config}.yaml"
        train "${trunk}" "conf/${trunk_config}.yaml" \
            "--seed ${seed} --max_epoch ${trunk_epochs} ${trunk_options}"
        train "${system}_seed${seed}" "conf/${config}.yaml" "--seed ${seed} ${options}" "${trunk}"
    done
done
