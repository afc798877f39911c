#!/usr/bin/env bash
# ASR recipe with ESPnet's stages, options and directories, on pip-installed ESPnet alone.
set -e -u -o pipefail

[ -f utils/stages.sh ] || { echo "asr.sh: run this from a recipe's directory, e.g. egs2/an4/asr1" >&2; exit 2; }
. utils/stages.sh
. utils/lm_stages.sh
SECONDS=0
run_args=$(printf '%q ' "$0" "$@")

# General configuration
stage=1               # the first stage to run
stop_stage=10000      # the last stage to run
skip_stages=          # stages to leave out, e.g. "2 14"
skip_data_prep=false  # leave out stages 1-5
skip_train=false      # leave out stages 6-11
skip_eval=false       # leave out stages 12-13
skip_packing=false    # leave out stage 14
skip_compare=false    # leave out stage 16
ngpu=auto             # number of GPUs for training; auto: 1 where nvidia-smi lists one, else 0 (CPU)
num_nodes=1           # number of nodes
nj=auto               # parallel jobs of stages 2, 3 and 10; auto: one for each core
inference_nj=auto     # parallel jobs of stage 12; auto: one for each core
gpu_inference=false   # decode on the GPU
dumpdir=dump          # where the formatted audio goes
expdir=exp            # where experiments go
python=python3        # the Python to use

# Data preparation
local_data_opts=          # options for local/data.sh
speed_perturb_factors=    # e.g. "0.9 1.0 1.1"; empty: none
feats_type=raw            # only raw
audio_format=flac         # flac or wav
fs=16k                    # sampling rate
min_wav_duration=0.1      # seconds; what is not longer is left out
max_wav_duration=20.0     # seconds; what is not shorter is left out
skip_broken_audio=false   # leave out audio that cannot be read, instead of stopping

# Tokens
token_type=bpe        # char, bpe or word
nbpe=30               # number of SentencePiece pieces
bpemode=unigram       # unigram or bpe
bpe_char_cover=1.0    # share of characters that SentencePiece covers
bpe_nlsyms=           # symbols that SentencePiece keeps whole, joined by commas
nlsyms_txt=none       # file of non-linguistic symbols

# Neural language model (stages 6-8), used by decoder_type espnet
use_lm=false          # train and use one
lm_tag=               # name of the experiment after lm_; empty: made from config and arguments
lm_exp=               # directory of the experiment; empty: EXPDIR/lm_TAG
lm_stats_dir=         # directory of the statistics; empty: EXPDIR/lm_stats_...
lm_config=            # training configuration
lm_args=              # arguments that win over the configuration, e.g. "--max_epoch 10"
lm_fold_length=150    # in tokens (batch_type folded)

# N-gram (stage 9), used by decoder_type ngram and espnet
use_ngram=false       # estimate and use one
ngram_exp=            # directory of the n-gram; empty: EXPDIR/ngram_UNIT
ngram_num=3           # order
ngram_unit=word       # word: over words, decoded with a lexicon; token: over the model's tokens

# ASR model
asr_tag=                   # name of the experiment after asr_; empty: made from config and arguments
asr_exp=                   # directory of the experiment; empty: EXPDIR/asr_TAG
asr_stats_dir=             # directory of the statistics; empty: EXPDIR/asr_stats_...
asr_config=                # training configuration
asr_args=                  # arguments that win over the configuration, e.g. "--max_epoch 10"
pretrained_model=          # parameters to start from
ignore_init_mismatch=false # go on where they do not fit
feats_normalize=global_mvn # global_mvn, utterance_mvn, or none: as the training config says
asr_speech_fold_length=800 # in hundreds of samples (batch_type folded)
asr_text_fold_length=150   # in tokens (batch_type folded)

# Decoding and scoring
batch_size=1                              # utterances decoded together
inference_tag=                            # name of the decoding directory; empty: made from the options
inference_config=                         # decoding configuration
inference_args=                           # arguments that win over it, e.g. "--blank_threshold 0.9"
inference_asr_model=valid.cer_ctc.ave.pth # parameters to decode with
max_wer_increase=1.0                      # budget in percent of the full-depth WER, for a decoding with blank_threshold: auto
shifts=                                   # shifted copies of the test sets that stages 12 and 13 make, decode and score too, e.g. "noise10 reverb telephone"
calibration_shifts=default                # shifted copies of it, in each of which twice the budget is kept: names as of --shifts, default or none
calibration_set=                          # data set for that; empty: the validation set, though it chose the checkpoint (calibration.json says so)
inference_lm=valid.loss.ave.pth           # parameters of the neural language model
inference_ngram=                          # file in the n-gram's directory; empty: NGRAM_NUMgram.arpa
scorer=auto                               # sclite, jiwer, or auto: sclite where it is installed
missing_as_empty=false                    # score an utterance without a result as empty, not an error
compare_exps=                             # experiments for stage 16; empty: this one
compare_dir=                              # where stage 16 writes; empty: EXPDIR/compare

# Task
train_set=        # name of the training set (required)
valid_set=        # name of the validation set (required)
test_sets=        # names of the test sets (required)
bpe_train_text=   # text for SentencePiece; empty: the training text
lm_train_text=    # text for the language models and the char or word list; empty: the training text
lm_dev_text=      # text to validate the neural language model; empty: that of the validation set
lm_test_text=     # text for its perplexity; empty: that of the first test set
lang=noinfo       # language of the corpus
. utils/parse_options.sh
export python
user_threads=${OMP_NUM_THREADS:-}
. ./path.sh
. ./cmd.sh

log "${run_args}"
: "${nlsyms_txt:=none}"
for name in train_set valid_set test_sets; do
    [ -n "${!name}" ] || die "--${name} is required"
done
[ "${feats_type}" = raw ] || die "--feats_type '${feats_type}': choose raw"
[[ " char bpe word " == *" ${token_type} "* ]] || die "--token_type '${token_type}': choose char, bpe or word"
[[ " word token " == *" ${ngram_unit} "* ]] || die "--ngram_unit '${ngram_unit}': choose word or token"
[ "${stage}" -le "${stop_stage}" ] && [ "${stage}" -le 16 ] && [ "${stop_stage}" -ge 1 ] \
    || die "--stage ${stage} --stop_stage ${stop_stage}: no stage is in between; there are 1 to 16"
[[ ${skip_stages} =~ ^[0-9\ ]*$ ]] || die "--skip_stages '${skip_stages}': numbers are needed, joined by spaces"
[ "${stage}" -gt 11 ] || need_config "${asr_config}"
[ "${stop_stage}" -lt 12 ] || need_config "${inference_config}"
cores=$(getconf _NPROCESSORS_ONLN)
[ "${nj}" = auto ] && nj=$((cores < 32 ? cores : 32))
[ "${inference_nj}" = auto ] && inference_nj=$((cores < 32 ? cores : 32))
if [ "${ngpu}" = auto ]; then
    if nvidia-smi -L 2> /dev/null | grep -q GPU; then ngpu=1; else ngpu=0; fi
fi
[[ ${ngpu} =~ ^[0-9]+$ ]] || die "--ngpu '${ngpu}': auto or an integer is needed"
for name in nj inference_nj num_nodes; do
    [[ ${!name} =~ ^0*[1-9][0-9]*$ ]] || die "--${name} '${!name}': an integer from 1 on is needed"
done
"${python}" -c '' || die "--python '${python}': cannot be run"

# ESPnet's names
data_feats=${dumpdir}/raw
tokens_tag=${token_type}
[ "${token_type}" = bpe ] && tokens_tag=bpe${nbpe}
lang_tag=
[ "${lang}" = noinfo ] || lang_tag=_${lang}
token_dir=data/${lang_tag:+${lang}_}token_list/${token_type}
[ "${token_type}" = bpe ] && token_dir+=_${bpemode}${nbpe}
token_list=${token_dir}/tokens.txt
bpemodel=none
[ "${token_type}" = bpe ] && bpemodel=${token_dir}/bpe.model
: "${bpe_train_text:=${data_feats}/${train_set}${speed_perturb_factors:+_sp}/text}"
# A language model learns from each sentence once, not from its copies of another speed.
list_text=${lm_train_text:-${data_feats}/${train_set}${speed_perturb_factors:+_sp}/text}
: "${lm_train_text:=data/${train_set}/text}"
: "${lm_dev_text:=${data_feats}/${valid_set}/text}"
: "${lm_test_text:=${data_feats}/${test_sets%% *}/text}"
if [ -z "${lm_tag}" ]; then
    lm_tag=train
    [ -n "${lm_config}" ] && lm_tag=$(basename "${lm_config}" .yaml)
    lm_tag+=${lang_tag}_${tokens_tag}
    [ -n "${lm_args}" ] && lm_tag+=$(sed -e 's/--/_/g' -e 's/[ |=/]//g' <<< "${lm_args}")
fi
: "${lm_exp:=${expdir}/lm_${lm_tag}}"
: "${lm_stats_dir:=${expdir}/lm_stats${lang_tag}_${tokens_tag}}"
: "${ngram_exp:=${expdir}/ngram_${ngram_unit}}"
: "${inference_ngram:=${ngram_num}gram.arpa}"
if [ -z "${asr_tag}" ]; then
    asr_tag=train
    [ -n "${asr_config}" ] && asr_tag=$(basename "${asr_config}" .yaml)
    asr_tag+=_${feats_type}${lang_tag}_${tokens_tag}
    [ -n "${asr_args}" ] && asr_tag+=$(sed -e 's/--/_/g' -e 's/[ |=/]//g' <<< "${asr_args}")
    [ -n "${speed_perturb_factors}" ] && asr_tag+=_sp
fi
: "${asr_exp:=${expdir}/asr_${asr_tag}}"
for name in asr_exp lm_exp ngram_exp; do declare "${name}=${!name%/}"; done  # names of files follow from them
: "${asr_stats_dir:=${expdir}/asr_stats_${feats_type}${lang_tag}_${tokens_tag}${speed_perturb_factors:+_sp}}"
# The language models that the decoder uses: one for another decoder would change nothing.
decoder=$(told "decoder|decoder_type" "${inference_config}" "${inference_args}")
decode_lm=${use_lm}
decode_ngram=${use_ngram}
[[ " greedy prefix_beam ngram " == *" ${decoder} "* ]] && decode_lm=false
[[ " greedy prefix_beam " == *" ${decoder} "* ]] && decode_ngram=false
if [ -z "${inference_tag}" ]; then
    inference_tag=inference
    [ -n "${inference_config}" ] && inference_tag=$(basename "${inference_config}" .yaml)
    [ -n "${inference_args}" ] && inference_tag+=$(sed -e 's/--/_/g' -e 's/[ |=/]//g' <<< "${inference_args}")
    "${decode_lm}" && inference_tag+=_lm_$(basename "${lm_exp}")_${inference_lm%.*}
    "${decode_ngram}" && inference_tag+=_$(basename "${ngram_exp}")_${inference_ngram%.*}
    inference_tag+=_asr_model_$(sed -e 's/\//_/g' -e 's/\.[^.]*$//' <<< "${inference_asr_model}")
fi

if ! "${skip_data_prep}"; then
    if wants 1; then
        begin "Stage 1: Data preparation -> data/${train_set}, data/${valid_set}, ${test_sets}"
        hold data
        words "${local_data_opts}"
        local/data.sh ${words[@]+"${words[@]}"}
        end 1
    fi

    if wants 2; then
        if [ -n "${speed_perturb_factors}" ]; then
            begin "Stage 2: Speed perturbation (${speed_perturb_factors}): data/${train_set} -> data/${train_set}_sp"
            hold data
            recipe perturb_speed --factors "${speed_perturb_factors}" --nj "${nj}" \
                --skip_broken_audio "${skip_broken_audio}" "data/${train_set}" "data/${train_set}_sp"
            end 2
        else
            log "Stage 2: Skipped: no --speed_perturb_factors"
        fi
    fi
fi
[ -n "${speed_perturb_factors}" ] && train_set+=_sp

if ! "${skip_data_prep}"; then
    if wants 3; then
        begin "Stage 3: Format wav.scp: data/ -> ${data_feats} (${audio_format}, ${fs}, mono)"
        hold data
        # shellcheck disable=SC2086
        dsets=$(printf '%s\n' "${train_set}" "${valid_set}" ${calibration_set} ${test_sets} | awk '!seen[$0]++')
        for dset in ${dsets}; do need_file "data/${dset}/wav.scp" "stages 1 and 2 make it"; done
        for dset in ${dsets}; do
            target=${data_feats}/${dset}
            case "${dset}" in "${train_set}"|"${valid_set}") target=${data_feats}/org/${dset} ;; esac
            recipe format_wav_scp --nj "${nj}" --fs "${fs}" --audio_format "${audio_format}" \
                --skip_broken_audio "${skip_broken_audio}" "data/${dset}" "${target}"
        done
        end 3
    fi

    if wants 4; then
        begin "Stage 4: Remove long, short and empty utterances: ${data_feats}/org -> ${data_feats}"
        hold data
        for dset in "${train_set}" "${valid_set}"; do
            recipe filter_data --fs "${fs}" --min_wav_duration "${min_wav_duration}" \
                --max_wav_duration "${max_wav_duration}" "${data_feats}/org/${dset}" "${data_feats}/${dset}"
        done
        end 4
    fi

    if wants 5; then
        text=${list_text}
        [ "${token_type}" = bpe ] && text=${bpe_train_text}
        begin "Stage 5: Token list (${token_type}): ${text} -> ${token_list}"
        hold data
        files "${text}"
        need_symbols
        for text in "${words[@]}"; do need_file "${text}" "stages 3 and 4 make dump/, an option named *_train_text names others"; done
        recipe token_list --token_type "${token_type}" --text "${words[@]}" --output "${token_list}" \
            --nlsyms_txt "${nlsyms_txt}" --nbpe "${nbpe}" --bpemode "${bpemode}" \
            --bpe_char_cover "${bpe_char_cover}" --bpe_nlsyms "${bpe_nlsyms}"
        end 5
    fi
else
    log "Skip the data preparation stages"
fi

# What stages 10 and 11 have in common
train_opts=(
    --use_preprocessor true
    --bpemodel "${bpemodel}" --token_type "${token_type}" --token_list "${token_list}"
    --non_linguistic_symbols "${nlsyms_txt}" --cleaner none --g2p none
    --frontend_conf fs="${fs}"
    --train_data_path_and_name_and_type "${data_feats}/${train_set}/wav.scp,speech,sound"
    --train_data_path_and_name_and_type "${data_feats}/${train_set}/text,text,text"
    --valid_data_path_and_name_and_type "${data_feats}/${valid_set}/wav.scp,speech,sound"
    --valid_data_path_and_name_and_type "${data_feats}/${valid_set}/text,text,text"
)
[ -n "${asr_config}" ] && train_opts+=(--config "${asr_config}")

if ! "${skip_train}"; then
    lm_stages

    if wants 10; then
        begin "Stage 10: ASR collect stats: ${data_feats}/{${train_set},${valid_set}} -> ${asr_stats_dir}"
        need_config "${asr_config}"
        need_file "${token_list}" "stage 5 makes it"
        need_symbols
        logdir=${asr_stats_dir}/logdir
        write_run_sh "${asr_stats_dir}" 10
        mkdir -p "${logdir}"
        for dset in "${train_set}" "${valid_set}"; do
            need_file "${data_feats}/${dset}/wav.scp" "stages 3 and 4 make it"
        done
        stats_nj=$(min "${nj}" "$(wc -l < "${data_feats}/${train_set}/wav.scp")" "$(wc -l < "${data_feats}/${valid_set}/wav.scp")")
        recipe split_scp --nj "${stats_nj}" "${data_feats}/${train_set}/wav.scp" "${logdir}/train.JOB.scp"
        recipe split_scp --nj "${stats_nj}" "${data_feats}/${valid_set}/wav.scp" "${logdir}/valid.JOB.scp"

        log "ASR collect-stats started... log: '${logdir}/stats.*.log'"
        words "${asr_args}"
        # shellcheck disable=SC2086
        ${train_cmd} JOB=1:"${stats_nj}" "${logdir}/stats.JOB.log" \
            "${python}" -m espnet_layerskip.bin.asr_train \
                --collect_stats true \
                "${train_opts[@]}" \
                --train_shape_file "${logdir}/train.JOB.scp" \
                --valid_shape_file "${logdir}/valid.JOB.scp" \
                --output_dir "${logdir}/stats.JOB" \
                ${words[@]+"${words[@]}"} --ngpu 0

        input_dirs=()
        for n in $(seq "${stats_nj}"); do input_dirs+=(--input_dir "${logdir}/stats.${n}"); done
        ${train_cmd} "${logdir}/aggregate.log" \
            "${python}" -m espnet2.bin.aggregate_stats_dirs "${input_dirs[@]}" --output_dir "${asr_stats_dir}"
        # The number of tokens as the last dimension: batch_bins counts it.
        num_tokens=$(wc -l < "${token_list}")
        for part in train valid; do
            add_dimension "${asr_stats_dir}/${part}/text_shape" "${num_tokens}" \
                "${asr_stats_dir}/${part}/text_shape.${token_type}"
        done
        end 10
    fi

    if wants 11; then
        begin "Stage 11: ASR training: ${data_feats}/{${train_set},${valid_set}} -> ${asr_exp}"
        need_config "${asr_config}"
        for part in train valid; do
            need_file "${asr_stats_dir}/${part}/text_shape.${token_type}" "stage 10 makes it"
        done
        case ${feats_normalize} in
            global_mvn) normalize_opts=(--normalize global_mvn
                --normalize_conf "stats_file=${asr_stats_dir}/train/feats_stats.npz") ;;
            utterance_mvn) normalize_opts=(--normalize utterance_mvn) ;;
            none) normalize_opts=() ;;
            *) die "--feats_normalize '${feats_normalize}': choose global_mvn, utterance_mvn or none" ;;
        esac
        init_opts=()
        if [ -n "${pretrained_model}" ]; then
            init_opts=(--init_param "${pretrained_model}" --ignore_init_mismatch "${ignore_init_mismatch}")
        fi
        write_run_sh "${asr_exp}" 11

        train_command=(
            "${python}" -m espnet_layerskip.bin.asr_train
            "${train_opts[@]}"
            --train_shape_file "${asr_stats_dir}/train/speech_shape"
            --train_shape_file "${asr_stats_dir}/train/text_shape.${token_type}"
            --valid_shape_file "${asr_stats_dir}/valid/speech_shape"
            --valid_shape_file "${asr_stats_dir}/valid/text_shape.${token_type}"
            --resume true
            --fold_length "$((asr_speech_fold_length * 100))"
            --fold_length "${asr_text_fold_length}"
            --output_dir "${asr_exp}"
            ${init_opts[@]+"${init_opts[@]}"}
            ${normalize_opts[@]+"${normalize_opts[@]}"}
        )
        log "ASR training started (ngpu=${ngpu})... log: '${asr_exp}/train.log'"
        if [ "${ngpu}" -eq 0 ]; then
            # One process on a CPU may use every core; OMP_NUM_THREADS says otherwise. glibc keeps
            # what is freed: giving large tensors back to the system at every update costs time.
            export OMP_NUM_THREADS=${user_threads:-${cores}} MALLOC_MMAP_THRESHOLD_=33554432
            export MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_TOP_PAD_=67108864
        fi
        words "${asr_args}"
        if [ "${num_nodes}" -gt 1 ]; then
            "${python}" -m espnet2.bin.launch --cmd "${cuda_cmd}" --log "${asr_exp}/train.log" \
                --ngpu "${ngpu}" --num_nodes "${num_nodes}" --multiprocessing_distributed true \
                --init_file_prefix "${asr_exp}/.dist_init_" -- "${train_command[@]}" ${words[@]+"${words[@]}"}
        else
            show=()
            [[ ${cuda_cmd} == *espnet_layerskip.recipe.run_jobs* ]] \
                && show=(--rotate 5 --show 'epoch results:|The training was finished|has already reached')
            # shellcheck disable=SC2086
            ${cuda_cmd} --gpu "${ngpu}" ${show[@]+"${show[@]}"} "${asr_exp}/train.log" \
                "${train_command[@]}" ${words[@]+"${words[@]}"} --ngpu "${ngpu}" --multiprocessing_distributed true
        fi
        end 11
    fi
else
    log "Skip the training stages"
fi

eval_sets=${test_sets}
for shift in ${shifts}; do
    for dset in ${test_sets}; do eval_sets+=" ${dset}_${shift}"; done
done
if ! "${skip_eval}"; then
    if wants 12; then
        begin "Stage 12: Decoding: ${asr_exp}/${inference_asr_model} -> ${asr_exp}/${inference_tag}"
        need_model
        lm_opts=()
        if [ "${decode_lm}${decode_ngram}" != "${use_lm}${use_ngram}" ]; then
            log "decoder ${decoder}: language models that it cannot use are left out (use_lm=${decode_lm}, use_ngram=${decode_ngram})"
        fi
        if "${decode_lm}"; then
            need_file "${lm_exp}/${inference_lm}" "stage 7 makes it; --inference_lm chooses one"
            lm_opts+=(--lm_train_config "${lm_exp}/config.yaml" --lm_file "${lm_exp}/${inference_lm}")
        fi
        if "${decode_ngram}"; then
            [ "${ngram_unit}" = token ] || [ "${decoder}" = ngram ] \
                || die "ESPnet's search takes an n-gram over tokens: --ngram_unit token, or decoder_type: ngram"
            need_file "${ngram_exp}/${inference_ngram}" "stage 9 makes it"
            lm_opts+=(--ngram_file "${ngram_exp}/${inference_ngram}")
            [ "${ngram_unit}" = word ] && lm_opts+=(--lexicon "${ngram_exp}/words.txt")
        fi
        write_run_sh "${asr_exp}/${inference_tag}" 12
        threshold=$(told blank_threshold "${inference_config}" "${inference_args}")
        if [ "${threshold}" = auto ]; then
            cal_set=${calibration_set:-${valid_set}}
            cal_opts=()
            if [ "${cal_set}" = "${valid_set}" ]; then
                log "Calibration: ${valid_set} chose the checkpoint: what it shows is too good; --calibration_set names another"
                cal_opts+=(--allow-seen-data)
            fi
            log "Calibration: ${max_wer_increase} % more errors at most on ${data_feats}/${cal_set} (shifted copies: ${calibration_shifts}) -> ${asr_exp}/calibration.json"
            need_file "${data_feats}/${cal_set}/wav.scp" "stages 3 and 4 make it"
            status=0
            "${python}" -m espnet_layerskip.cli calibrate --if-needed ${cal_opts[@]+"${cal_opts[@]}"} \
                --exp "${asr_exp}" --model-file "${inference_asr_model}" --data "${data_feats}/${cal_set}" \
                --max-wer-increase "${max_wer_increase}" --shifts "${calibration_shifts}" || status=$?
            case "${status}" in
                0) ;;
                1) need_file "${asr_exp}/calibration.json" "calibration failed with status 1"
                    log "Calibration: utterances of ${cal_set} could not be used, see above" ;;
                3) log "Calibration: nothing is shown to keep the budget, so that frames skip no layers" ;;
                *) die "calibration failed with status ${status}" ;;
            esac
        fi
        for shift in ${shifts}; do
            for dset in ${test_sets}; do
                need_file "${data_feats}/${dset}/wav.scp" "stage 3 makes it"
                recipe shift_data --nj "${nj}" --shift "${shift}" "${data_feats}/${dset}" "${data_feats}/${dset}_${shift}"
            done
        done
        for dset in ${eval_sets}; do need_file "${data_feats}/${dset}/wav.scp" "stage 3 makes it"; done
        failed=
        _ngpu=0
        _cmd=${decode_cmd}
        if "${gpu_inference}"; then _ngpu=1; _cmd=${cuda_cmd}; fi
        for dset in ${eval_sets}; do
            data=${data_feats}/${dset}
            dir=${asr_exp}/${inference_tag}/${dset}
            logdir=${dir}/logdir
            mkdir -p "${logdir}"
            _nj=$(min "${inference_nj}" "$(wc -l < "${data}/wav.scp")")
            recipe split_scp --nj "${_nj}" "${data}/wav.scp" "${logdir}/keys.JOB.scp"
            resume=()
            if [[ ${_cmd} == *espnet_layerskip.recipe.run_jobs* ]]; then
                resume=(--retries 1 --done "${logdir}/done.JOB.json" --fresh "${logdir}/output.JOB"
                    --makes "${logdir}/output.JOB/1best_recog/text"
                    --depends "${logdir}/keys.JOB.scp" --depends "${data}/audio_checksums"
                    --depends "${asr_exp}/${inference_asr_model}" --depends "${asr_exp}/config.yaml")
                [ -n "${inference_config}" ] && resume+=(--depends "${inference_config}")
                # "auto", which is the default too, reads it
                [ "${threshold:-auto}" = auto ] && [ -f "${asr_exp}/calibration.json" ] \
                    && resume+=(--depends "${asr_exp}/calibration.json")
                for name in lexicon ngram_file lm_file lm_train_config; do
                    file=$(told "${name}" "${inference_config}" "${inference_args}")
                    [ -z "${file}" ] || resume+=(--depends "${file}")
                done
                "${decode_lm}" && resume+=(--depends "${lm_exp}/${inference_lm}" --depends "${lm_exp}/config.yaml")
                "${decode_ngram}" && resume+=(--depends "${ngram_exp}/${inference_ngram}")
                "${decode_ngram}" && [ "${ngram_unit}" = word ] && resume+=(--depends "${ngram_exp}/words.txt")
            fi
            log "Decoding of ${dset} started... log: '${logdir}/asr_inference.*.log'"
            words "${inference_args}"
            # shellcheck disable=SC2086
            ${_cmd} --gpu "${_ngpu}" ${resume[@]+"${resume[@]}"} JOB=1:"${_nj}" "${logdir}/asr_inference.JOB.log" \
                "${python}" -m espnet_layerskip.bin.asr_inference \
                    --batch_size "${batch_size}" --ngpu "${_ngpu}" \
                    --data_path_and_name_and_type "${data}/wav.scp,speech,sound" \
                    --key_file "${logdir}/keys.JOB.scp" \
                    --asr_train_config "${asr_exp}/config.yaml" \
                    --asr_model_file "${asr_exp}/${inference_asr_model}" \
                    --output_dir "${logdir}/output.JOB" \
                    ${lm_opts[@]+"${lm_opts[@]}"} \
                    ${inference_config:+--config "${inference_config}"} ${words[@]+"${words[@]}"} || failed+=" ${dset}"
            # What the parts have is kept, also when one of them failed.
            recipe merge_outputs --nj "${_nj}" --keys "${data}/wav.scp" "${logdir}/output.JOB" "${dir}"
        done
        [ -z "${failed}" ] || die "decoding failed for:${failed}; what there is, is in" \
            "${asr_exp}/${inference_tag}/*/text; run stage 12 again to go on"
        end 12
    fi

    if wants 13; then
        begin "Stage 13: Scoring: ${asr_exp}/${inference_tag} -> ${asr_exp}/RESULTS.md"
        need_symbols
        for dset in ${eval_sets}; do
            need_file "${asr_exp}/${inference_tag}/${dset}/text" "stage 12 makes it"
            recipe score --ref "${data_feats}/${dset}" --hyp "${asr_exp}/${inference_tag}/${dset}/text" \
                --output "${asr_exp}/${inference_tag}/${dset}" --scorer "${scorer}" \
                --nlsyms_txt "${nlsyms_txt}" --bpemodel "${bpemodel}" --missing_as_empty "${missing_as_empty}"
        done
        # shellcheck disable=SC1091
        if [ -f local/score.sh ]; then local/score.sh "${asr_exp}"; fi
        recipe show_asr_result "${asr_exp}" --output "${asr_exp}/RESULTS.md"
        cat "${asr_exp}/RESULTS.md"
        end 13
    fi
else
    log "Skip the evaluation stages"
fi

if wants 14 && ! "${skip_packing}"; then
    packed_model=${asr_exp}/${asr_exp##*/}_${inference_asr_model%.*}.zip
    begin "Stage 14: Pack model: ${asr_exp} -> ${packed_model}"
    need_model
    pack_opts=()
    named=$(recipe named_files "${asr_exp}/config.yaml")
    mapfile -t named <<< "${named}"
    for extra in "${asr_exp}/RESULTS.md" "${asr_exp}/calibration.json" "${asr_exp}/images" "${token_list}" "${named[@]}"; do
        [ -e "${extra}" ] && pack_opts+=(--option "${extra}")
    done
    ${train_cmd} "${asr_exp}/pack.log" "${python}" -m espnet2.bin.pack asr \
        --asr_train_config "${asr_exp}/config.yaml" --asr_model_file "${asr_exp}/${inference_asr_model}" \
        ${pack_opts[@]+"${pack_opts[@]}"} --outpath "${packed_model%.zip}.partial.zip"
    mv "${packed_model%.zip}.partial.zip" "${packed_model}"
    end 14
fi

if wants 15; then
    log "Stage 15: Skipped: nothing is uploaded from here (ESPnet: 15 upload)"
fi

if wants 16 && ! "${skip_compare}"; then
    : "${compare_exps:=${asr_exp}}"
    : "${compare_dir:=${expdir}/compare}"
    begin "Stage 16: Compare experiments: ${compare_exps} -> ${compare_dir}"
    hold "${compare_dir}"
    files "${compare_exps}"
    "${python}" -m espnet_layerskip.bin.compare_exps --data "${data_feats}/${test_sets##* }" \
        --model_file "${inference_asr_model}" --exp "${words[@]}" --output "${compare_dir}"
    end 16
fi

log "Successfully finished. [elapsed=${SECONDS}s]"
