# shellcheck shell=bash disable=SC2154
# Sourced by asr.sh: the stages of the language models, 6-9, with asr.sh's options and names.

# write_lm_text: the sentences that they learn from, without empty ones
write_lm_text() {
    mkdir -p "${data_feats}"
    files "${lm_train_text}"
    for text in "${words[@]}"; do need_file "${text}" "stage 1 makes data/, --lm_train_text names others"; done
    cat "${words[@]}" | awk 'NF > 1' > "${data_feats}/lm_train.txt.partial"
    mv "${data_feats}/lm_train.txt.partial" "${data_feats}/lm_train.txt"
}

# lm_stages: run those of 6-9 that are wanted
lm_stages() {
    local lm_opts text num_tokens part ngram_type
    lm_opts=(
        --use_preprocessor true
        --bpemodel "${bpemodel}" --token_type "${token_type}" --token_list "${token_list}"
        --non_linguistic_symbols "${nlsyms_txt}" --cleaner none --g2p none
        --train_data_path_and_name_and_type "${data_feats}/lm_train.txt,text,text"
        --valid_data_path_and_name_and_type "${lm_dev_text},text,text"
    )
    [ -n "${lm_config}" ] && lm_opts+=(--config "${lm_config}")
    if wants 6; then
        if "${use_lm}"; then
            begin "Stage 6: LM collect stats: ${data_feats}/lm_train.txt, ${lm_dev_text} -> ${lm_stats_dir}"
            need_config "${lm_config}"
            need_file "${token_list}" "stage 5 makes it"
            need_file "${lm_dev_text}" "stages 3 and 4 make it, or --lm_dev_text names one"
            write_lm_text
            write_run_sh "${lm_stats_dir}" 6
            words "${lm_args}"
            # shellcheck disable=SC2086
            ${train_cmd} "${lm_stats_dir}/stats.log" \
                "${python}" -m espnet_layerskip -m espnet2.bin.lm_train --collect_stats true \
                    "${lm_opts[@]}" \
                    --train_shape_file "${data_feats}/lm_train.txt" --valid_shape_file "${lm_dev_text}" \
                    --output_dir "${lm_stats_dir}" ${words[@]+"${words[@]}"} --ngpu 0
            num_tokens=$(wc -l < "${token_list}")
            for part in train valid; do
                add_dimension "${lm_stats_dir}/${part}/text_shape" "${num_tokens}" \
                    "${lm_stats_dir}/${part}/text_shape.${token_type}"
            done
            end 6
        else
            log "Stage 6: Skipped: no --use_lm true"
        fi
    fi

    if wants 7; then
        if "${use_lm}"; then
            begin "Stage 7: LM training: ${data_feats}/lm_train.txt -> ${lm_exp}"
            need_config "${lm_config}"
            need_file "${lm_stats_dir}/train/text_shape.${token_type}" "stage 6 makes it"
            write_run_sh "${lm_exp}" 7
            log "LM training started... log: '${lm_exp}/train.log'"
            words "${lm_args}"
            # shellcheck disable=SC2086
            ${cuda_cmd} --gpu "${ngpu}" "${lm_exp}/train.log" \
                "${python}" -m espnet_layerskip -m espnet2.bin.lm_train \
                    "${lm_opts[@]}" \
                    --train_shape_file "${lm_stats_dir}/train/text_shape.${token_type}" \
                    --valid_shape_file "${lm_stats_dir}/valid/text_shape.${token_type}" \
                    --fold_length "${lm_fold_length}" --resume true \
                    --output_dir "${lm_exp}" ${words[@]+"${words[@]}"} --ngpu "${ngpu}"
            end 7
        else
            log "Stage 7: Skipped: no --use_lm true"
        fi
    fi

    if wants 8; then
        if "${use_lm}"; then
            begin "Stage 8: LM perplexity: ${lm_test_text} -> ${lm_exp}/perplexity_test/ppl"
            need_file "${lm_exp}/${inference_lm}" "stage 7 makes it; --inference_lm chooses one"
            # shellcheck disable=SC2086
            ${cuda_cmd} --gpu "${ngpu}" "${lm_exp}/perplexity_test/lm_calc_perplexity.log" \
                "${python}" -m espnet_layerskip -m espnet2.bin.lm_calc_perplexity --ngpu "${ngpu}" \
                    --data_path_and_name_and_type "${lm_test_text},text,text" \
                    --train_config "${lm_exp}/config.yaml" --model_file "${lm_exp}/${inference_lm}" \
                    --output_dir "${lm_exp}/perplexity_test"
            log "PPL: ${lm_test_text}: $(cat "${lm_exp}/perplexity_test/ppl")"
            end 8
        else
            log "Stage 8: Skipped: no --use_lm true"
        fi
    fi

    if wants 9; then
        if "${use_ngram}"; then
            begin "Stage 9: N-gram (${ngram_num}, ${ngram_unit}): ${data_feats}/lm_train.txt -> ${ngram_exp}/${ngram_num}gram.arpa"
            hold "${ngram_exp}"
            write_lm_text
            ngram_type=${token_type}
            [ "${ngram_unit}" = word ] && ngram_type=word
            recipe train_ngram --order "${ngram_num}" --token_type "${ngram_type}" \
                --bpemodel "${bpemodel}" --nlsyms_txt "${nlsyms_txt}" --text "${data_feats}/lm_train.txt" \
                --output "${ngram_exp}/${ngram_num}gram.arpa" --words "${ngram_exp}/words.txt"
            end 9
        else
            log "Stage 9: Skipped: no --use_ngram true"
        fi
    fi
}
