#!/usr/bin/env bash
# A small OWSM-CTC on CMU AN4, by ESPnet's own S2T task, and skipping in it:
# ./run.sh --python .../python3.12 [--an4_root DIR]; it needs ESPnet 202611.
set -e -u -o pipefail

an4_root=       # directory of AN4 (GitHub WAV or official sphere layout); empty: it is downloaded
stage=1         # the first stage to run
stop_stage=12   # the last stage to run
skip_stages=    # stages to leave out, e.g. "1 12"
python=python3  # the Python to use
expdir=exp      # where experiments go
s2t_config=conf/train_s2t_ctc.yaml      # training configuration
s2t_tag=train_s2t_ctc                   # name of the experiment after s2t_
s2t_args=                               # arguments that win over the configuration, e.g. "--seed 2"
window=10                               # seconds of a window; the configuration's speech_length
inference_s2t_model=valid.cer_ctc.ave_5best.pth  # parameters to decode with
[ -f utils/parse_options.sh ] || { echo "$0: run this from its directory: cd '${0%/*}'" >&2; exit 2; }
. utils/parse_options.sh
. utils/stages.sh
export python
. ./path.sh
. ./cmd.sh

token_dir=data/en_token_list/s2t_char
stats=${expdir}/s2t_stats
exp=${expdir}/s2t_${s2t_tag}
train=dump/owsm/train_nodev_sp
valid=dump/owsm/train_dev

if wants 1; then
    # Stages 1-3 of the ASR recipe: AN4, its copies of other speed, FLAC
    ./asr.sh --python "${python}" --stage 1 --stop_stage 4 --lang en --token_type char --fs 16k \
        --train_set train_nodev --valid_set train_dev --test_sets "train_dev test" \
        --speed_perturb_factors "0.9 1.0 1.1" --local_data_opts "${an4_root:+--an4_root ${an4_root}}"
fi

if wants 4; then
    begin "Stage 4: OWSM's form: dump/raw -> dump/owsm"
    for dset in train_nodev_sp train_dev; do
        "${python}" local/windows.py --seconds "${window}" "dump/raw/${dset}" "dump/owsm/${dset}"
    done
    "${python}" local/windows.py --seconds 0 dump/raw/test dump/owsm/test
    "${python}" local/windows.py --seconds 1000 --alone_every 0 dump/raw/test dump/owsm/test_long
    end 4
fi

if wants 5; then
    begin "Stage 5: Token list: ${train}/text.ctc -> ${token_dir}"
    "${python}" local/tokens.py --text "${train}/text.ctc" --output "${token_dir}"
    end 5
fi

train_opts=(--config "${s2t_config}" --use_preprocessor true --token_type bpe --ngpu 0
    --bpemodel "${token_dir}/bpe.model" --token_list "${token_dir}/tokens.txt" --cleaner none)
for part in train valid; do
    for kind in wav.scp,speech,sound text,text,text text.prev,text_prev,text text.ctc,text_ctc,text; do
        train_opts+=("--${part}_data_path_and_name_and_type" "${!part}/${kind}")
    done
done

if wants 10; then
    begin "Stage 10: Collect stats -> ${stats}"
    mkdir -p "${stats}"
    # shellcheck disable=SC2086
    ${train_cmd} "${stats}/stats.log" "${python}" -m espnet2.bin.s2t_train_ctc --collect_stats true \
        "${train_opts[@]}" --train_shape_file "${train}/wav.scp" --valid_shape_file "${valid}/wav.scp" \
        --output_dir "${stats}" ${s2t_args}
    end 10
fi

if wants 11; then
    begin "Stage 11: Training -> ${exp}"
    mkdir -p "${exp}"
    # shellcheck disable=SC2086
    ${cuda_cmd} "${exp}/train.log" "${python}" -m espnet2.bin.s2t_train_ctc "${train_opts[@]}" \
        --train_shape_file "${stats}/train/speech_shape" --valid_shape_file "${stats}/valid/speech_shape" \
        --normalize global_mvn --normalize_conf "stats_file=${stats}/train/feats_stats.npz" \
        --resume true --output_dir "${exp}" ${s2t_args}
    end 11
fi

if wants 12; then
    begin "Stage 12: Decoding and scoring, skipping off and on -> RESULTS.md"
    local/results.sh --python "${python}" --exp "${exp}" --inference_s2t_model "${inference_s2t_model}"
    end 12
fi
