#!/usr/bin/env bash
# Generate RESULTS.md from the trainings of local/study.sh: one table of all systems, then the
# benchmark of ours against ESPnet. Decodings are cached in exp/compare. Run it on an idle machine.
set -e -u -o pipefail

seeds="1 2 3"    # those of them that were trained
python=python3   # Python with the package installed
repeats=5        # timed passes; 0 = only decode, into the cache
keep=false       # true: keep the pages of exp/bench that are there, each has its date and commit
words_seed=3     # of those trained, the one with the lower WER on train_dev with skipping on
. utils/parse_options.sh
. ./path.sh

all() {  # experiments of a system, one for each seed that is trained, joined by commas
    local dirs=()
    for seed in ${seeds}; do
        [ -e "exp/asr_$1_seed${seed}/valid.cer_ctc.ave.pth" ] && dirs+=("exp/asr_$1_seed${seed}")
    done
    (IFS=,; echo "${dirs[*]-}")
}

stock=$(all conformer) ours=$(all layerskip)
[ -n "${stock}" ] && [ -n "${ours}" ] || { echo "$0: run local/study.sh first" >&2; exit 1; }
gate() {  # <experiments> <option>...: copies with other gates; prints them, joined by commas
    local exp gated=
    for exp in ${1//,/ }; do
        "${python}" -m espnet_layerskip.recipe.add_gate "${exp}" "${exp}_gated" "${@:2}" >&2
        gated+=${gated:+,}${exp}_gated
    done
    echo "${gated}"
}
after_4=("gate_layer_idx=[4]" "spike_extension=[0,0]" "skip_context=packed_original")
gated=$(gate "${stock}" "${after_4[@]}")

rows=()
for extension in 0,0 1,1; do
    rows+=(--row "stock weights, decode-only skipping, extension ${extension}" "${gated}" "extension=${extension}")
done
rows+=(--row "stock weights, decode-only skipping, extension 0,0, full" "${gated}" "extension=0,0" context=full)
rows+=(--row "ours, skipping on, extension 1,1" "${ours}" "extension=1,1")
for context in full packed; do
    rows+=(--row "ours, skipping on, ${context}" "${ours}" "context=${context}")
done
for extension in 0 1; do  # a gate that drops repeats too, on models that have not met one in training
    rows+=(--row "ours, skipping on, full, extension ${extension}, repeats dropped" "${ours}"
        context=full "extension=${extension},${extension}" repeats=0.5)
done
for system in layerskip_nokd layerskip_factorized layerskip_factorized_nokd layerskip_stem32 layerskip_blankreg; do
    exps=$(all "${system}")
    [ -n "${exps}" ] || continue
    n=$(tr ',' '\n' <<< "${exps}" | wc -l) first_seeds=$(cut -d, -f "1-${n}" <<< "${ours}")
    rows+=(--row "${system}, skipping off" "${exps}" threshold=off --row "${system}, skipping on" "${exps}")
    if [ "${first_seeds}" != "${ours}" ] && [[ ${rows[*]} != *"first ${n} of the seeds"* ]]; then
        rows+=(--row "ours, first ${n} of the seeds, skipping off" "${first_seeds}" threshold=off
            --row "ours, first ${n} of the seeds, skipping on" "${first_seeds}")
    fi
done

"${python}" -m espnet_layerskip.bin.compare_exps --data dump/raw/test --output exp/compare \
    --model_file valid.cer_ctc.ave.pth --repeats "${repeats}" \
    --exp "stock=${stock}" "ours=${ours}" \
    --row "stock weights in our encoder, skipping off" "${gated}" threshold=off "${rows[@]}"
comparisons=(exp/compare/compare.md)
# Words: twins of the same seeds, and below them what differs in one thing or more.
words=$(all conformer_word) words_ours=$(all layerskip_word_reg) words_k3=$(all layerskip_word_k3)
if [ -n "${words}" ] && [ -n "${words_ours}" ]; then
    words_gated=$(gate "${words}" "${after_4[@]}") rows=()
    for context in full packed_original; do
        rows+=(--row "stock weights, decode-only skipping, ${context}" "${words_gated}" "context=${context}")
    done
    rows+=(--row "ours, skipping on, extension 1" "${words_ours}" "extension=1,1")
    for system in layerskip_word_k3 layerskip_word layerskip_word_packed layerskip_word_large; do
        exps=$(all "${system}")
        [ -z "${exps}" ] || rows+=(--row "${system}, skipping off" "${exps}" threshold=off
            --row "${system}, skipping on" "${exps}")
    done
    [ -z "${words_k3}" ] || rows+=(--row "layerskip_word_k3, skipping on, extension 1" "${words_k3}" "extension=1,1"
        --row "layerskip_word_k3, stopped at layer 3" "${words_k3}" exit=3)
    if [ -n "${words_k3}" ]; then  # at the other layers with an intermediate CTC, and cascades
        k3_gated=$(gate "${words_k3}" "gate_layer_idx=[2,3,5]")
        for gates in 2 5 3,5 2,3,5; do
            rows+=(--row "layerskip_word_k3, gates ${gates}, not trained for" "${k3_gated}" "gates=${gates}")
        done
    fi
    "${python}" -m espnet_layerskip.bin.compare_exps --data dump/raw/test --output exp/compare/words \
        --cache exp/compare/cache --model_file valid.cer_ctc.ave.pth --repeats "${repeats}" \
        --exp "stock=${words}" "ours=${words_ours}" "${rows[@]}"
    rows=()  # what to ship is chosen on train_dev
    for exp in ${words//,/ } ${words_ours//,/ } ${words_k3//,/ } ${ours//,/ }; do
        rows+=(--row "${exp#exp/asr_}" "${exp}")
    done
    "${python}" -m espnet_layerskip.bin.compare_exps --data dump/raw/train_dev --output exp/compare/dev \
        --cache exp/compare/cache --model_file valid.cer_ctc.ave.pth --repeats 0 "${rows[@]}"
    comparisons+=(exp/compare/words/compare.md exp/compare/dev/compare.md)
fi
[ "${repeats}" -gt 0 ] || exit 0
./run.sh --python "${python}" --stage 6 --stop_stage 9 --use_ngram true --use_lm true \
    --lm_config conf/train_lm.yaml --lm_exp exp/lm
done_before() { [ "${keep}" = true ] && [ -e "exp/bench/$1.md" ]; }
bench() {  # <output> <option>...; of the first seeds of ${model} and its stock ${twin}
    ! done_before "$1" || return 0
    "${python}" -m espnet_layerskip.cli benchmark --model "${model%%,*}" ${twin:+--twin "stock=${twin%%,*}"} \
        --wav-scp dump/raw/test/wav.scp --text dump/raw/test/text --model-file valid.cer_ctc.ave.pth \
        --output "exp/bench/$1.json" --repeats "${repeats}" "${@:2}"
}
model=${ours} twin=${stock}
# ESPnet's beam search takes minutes for a batch of long inputs: end to end is measured on 10 s, and
# on 3 and 30 s without a batch.
mkdir -p exp/bench
bench benchmark --scope encoder,model,e2e --seconds 10 --batch-size 1 --num-threads 1,2 \
    --ngram-file exp/ngram_word/3gram.arpa --lexicon exp/ngram_word/words.txt --lm-exp exp/lm
bench lengths --scope model,e2e --seconds 3,30 --batch-size 1 --num-threads 2
bench batches --scope model,e2e --seconds 10 --batch-size 8 --num-threads 2
bench encoder --scope encoder --seconds 3,10,30 --batch-size 1,8 --num-threads 1
done_before long_audio || "${python}" -m espnet_layerskip.bin.long_audio --exp "${ours%%,*}" --data dump/raw/test \
    --output exp/bench --seconds 0 10 600 3600 --num-threads 2
done_before whole/long_audio || "${python}" -m espnet_layerskip.bin.long_audio --exp "${ours%%,*}" --data dump/raw/test \
    --output exp/bench/whole --seconds 30 600 --repeats 1 --num-threads 2 --segment-size off
pages=(benchmark lengths batches encoder long_audio whole/long_audio)
if [ -n "${words}" ] && [ -n "${words_k3}" ]; then
    model=exp/asr_layerskip_word_k3_seed${words_seed} twin=exp/asr_conformer_word_seed${words_seed}
    bench words --scope encoder,e2e --seconds 10,30 --batch-size 1 --num-threads 2 \
        --ngram-file exp/ngram_word/3gram.arpa  # words are its tokens: no lexicon
    pages+=(words)
fi
model=$(all layerskip_word_large) twin=
if [ -n "${model}" ]; then
    bench large --scope encoder,e2e --seconds 10,30 --batch-size 1 --num-threads 2
    pages+=(large)
fi
pages=("${pages[@]/#/exp/bench/}")
{
    echo "<!-- Generated by local/results.sh after local/study.sh; do not edit. -->"
    cat "${comparisons[@]}" "${pages[@]/%/.md}"
} > RESULTS.md
echo "$0: see RESULTS.md"
