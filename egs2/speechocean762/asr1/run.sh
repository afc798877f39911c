#!/usr/bin/env bash
# speechocean762: ./run.sh [--so762_root DIR] [any option of asr.sh]
set -e -u -o pipefail

so762_root=    # directory of speechocean762; empty: it is downloaded
so762_url=https://www.openslr.org/resources/101/speechocean762.tar.gz  # its archive
so762_scores=  # directory with the expert scores train_utt2score and test_utt2score; empty: those of the corpus
an4_root=      # a copy of AN4: data/train_an4 is train with its training set; empty: not made
parse_known_options=true
[ -f utils/parse_options.sh ] || { echo "$0: run this from its directory: cd '${0%/*}'" >&2; exit 2; }
. utils/parse_options.sh

./asr.sh \
    --lang en --token_type bpe --nbpe 200 --fs 16k \
    --train_set train --valid_set dev --calibration_set calib --test_sets "calib test" \
    --bpe_train_text data/train/text --feats_normalize utterance_mvn \
    --speed_perturb_factors "0.9 1.0 1.1" \
    --asr_config conf/train_asr_layerskip.yaml \
    --inference_config conf/decode_asr.yaml \
    --local_data_opts "${so762_root:+--so762_root $(printf %q "${so762_root}")} --so762_url ${so762_url} ${so762_scores:+--so762_scores $(printf %q "${so762_scores}")} ${an4_root:+--an4_root $(printf %q "${an4_root}")}" \
    "$@"
