#!/usr/bin/env bash
# Generate RESULTS.md from the trainings of local/study.sh: accuracy of all systems, then the
# benchmark of ours against ESPnet. The numbers themselves are in JSON files beside the pages in
# exp/compare and exp/bench. Decodings are kept in exp/compare/cache. Run it on an idle machine.
set -e -u -o pipefail

seeds="1 2 3"    # those of them that were trained
python=python3   # Python with the package installed
repeats=5        # timed passes; 0 = only decode, into the cache
keep=false       # true: keep the pages that the same command made, each has its date and commit
. utils/parse_options.sh
. ./path.sh
. utils/seeds.sh

stock=$(all conformer) ours=$(all layerskip)
[ -n "${stock}" ] && [ -n "${ours}" ] || { echo "$0: run local/study.sh first" >&2; exit 1; }
gate() {  # <experiments> <option>...: copies with other gates; prints them, joined by commas
    local exp gated=
    for exp in ${1//,/ }; do
        "${python}" -m espnet_layerskip.recipe.add_gate "${exp}" "${exp}_gated" "${@:2}" >&2 || return 1
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

pages=() titles=()
page() {  # <title> <page> <module or program> <option>...: make a page, unless it is to be kept
    titles+=("$1") pages+=("$2")
    if [ "${keep}" = true ] && [ -e "$2" ] && [ "$(cat "$2.made_by" 2> /dev/null)" = "${*:3}" ]; then
        return 0
    fi
    if [ -f "$3" ]; then "${python}" "${@:3}"; else "${python}" -m "espnet_layerskip.$3" "${@:4}"; fi
    echo "${*:3}" > "$2.made_by"
}
compare() {  # <title> <name> <data> <repeats> <option>...
    local output=exp/compare/$2
    [ "${repeats}" -gt 0 ] || output=exp/compare/untimed/$2
    page "$1" "${output}/compare.md" bin.compare_exps --data "dump/raw/$3" --output "${output}" \
        --cache exp/compare/cache --model_file valid.cer_ctc.ave.pth --repeats "$4" "${@:5}"
}
compare "Accuracy: characters" characters test "${repeats}" --exp "stock=${stock}" "ours=${ours}" \
    --row "stock weights in our encoder, skipping off" "${gated}" threshold=off "${rows[@]}"
# Words: ESPnet's Conformer and ours with the same subsampling and units, and below them what differs in
# more; then both normalised by utterance and with more speeds, ours with a narrow subsampling.
words=$(all conformer_word) words_ours=$(all layerskip_word_reg) words_k3=$(all layerskip_word_k3)
aug=$(all conformer_word_aug) aug_ours=$(all layerskip_word_aug)
systems() {  # <system>...: two rows for each that is trained
    local system exps
    for system in "$@"; do
        exps=$(all "${system}")
        [ -z "${exps}" ] || rows+=(--row "${system}, skipping off" "${exps}" threshold=off
            --row "${system}, skipping on" "${exps}")
    done
}
gates_of() {  # <system>: rows for the other layers with an intermediate CTC, and cascades
    local gates exps
    exps=$(gate "$(all "$1")" "gate_layer_idx=[2,3,5]")
    for gates in 2 5 3,5 2,3,5; do
        rows+=(--row "$1, gates ${gates}, not trained for" "${exps}" "gates=${gates}")
    done
}
if [ -n "${words}" ] && [ -n "${words_ours}" ] && [ -n "${words_k3}" ]; then
    words_gated=$(gate "${words}" "${after_4[@]}") rows=()
    for context in full packed_original; do
        rows+=(--row "stock weights, decode-only skipping, ${context}" "${words_gated}" "context=${context}")
    done
    rows+=(--row "ours, skipping on, extension 1" "${words_ours}" "extension=1,1")
    systems layerskip_word_k3 layerskip_word layerskip_word_packed layerskip_word_large \
        layerskip_word_k3_cr layerskip_bpe_k3
    rows+=(--row "layerskip_word_k3, skipping on, extension 1" "${words_k3}" "extension=1,1"
        --row "layerskip_word_k3, stopped at layer 3" "${words_k3}" exit=3)
    gates_of layerskip_word_k3
    compare "Accuracy: whole words" words test "${repeats}" --exp "stock=${words}" "ours=${words_ours}" "${rows[@]}"
fi
if [ -n "${aug}" ] && [ -n "${aug_ours}" ]; then  # normalised by utterance, more speeds
    rows=(--row "ours, skipping on, extension 1" "${aug_ours}" "extension=1,1")
    systems layerskip_word_umvn
    gates_of layerskip_word_aug
    compare "Accuracy: whole words, normalised by utterance, more speeds" aug test "${repeats}" --exp "stock=${aug}" "ours=${aug_ours}" "${rows[@]}"
fi
rows=()  # what to ship is chosen on train_dev
for exp in ${words//,/ } ${words_ours//,/ } ${words_k3//,/ } ${aug//,/ } ${aug_ours//,/ } ${ours//,/ }; do
    rows+=(--row "${exp#exp/asr_}" "${exp}")
done
compare "Accuracy on train_dev, where the shipped model was chosen" dev train_dev 0 "${rows[@]}"
[ "${repeats}" -gt 0 ] || exit 0
./run.sh --python "${python}" --stage 6 --stop_stage 9 --use_ngram true --use_lm true \
    --lm_config conf/train_lm.yaml --lm_exp exp/lm
bench() {  # <title> <output> <option>...; of the first seeds of ${model} and its stock ${twin}
    page "$1" "exp/bench/$2.md" cli benchmark --model "${model%%,*}" ${twin:+--twin "stock=${twin%%,*}"} \
        --wav-scp dump/raw/test/wav.scp --text dump/raw/test/text --model-file valid.cer_ctc.ave.pth \
        --output "exp/bench/$2.json" --repeats "${repeats}" "${@:3}"
}
model=${ours} twin=${stock}
# ESPnet's beam search takes minutes for a batch of long inputs: end to end is measured on 10 s, and
# on 3 and 30 s without a batch.
mkdir -p exp/bench
bench "Speed: characters, 10 s" benchmark \
    --scope encoder,model,e2e --seconds 10 --batch-size 1 --num-threads 1,2 \
    --ngram-file exp/ngram_word/3gram.arpa --lexicon exp/ngram_word/words.txt --lm-exp exp/lm
bench "Speed: characters, 3 s and 30 s" lengths \
    --scope model,e2e --seconds 3,30 --batch-size 1 --num-threads 2
bench "Speed: characters, batches of eight" batches \
    --scope model,e2e --seconds 10 --batch-size 8 --num-threads 2
bench "Speed: characters, the encoder by length and batch, 1 thread" encoder \
    --scope encoder --seconds 3,10,30 --batch-size 1,8 --num-threads 1
long_audio() {  # <title> <folder> <option>...
    page "$1" "$2/long_audio.md" local/long_audio.py --exp "${ours%%,*}" --data dump/raw/test --output "$2" \
        --num-threads 2 "${@:3}"
}
long_audio "Long audio, in segments" exp/bench --seconds 0 10 600 3600
long_audio "Long audio, as a whole" exp/bench/whole --seconds 30 600 --repeats 1 --segment-size off
if [ -n "${aug}" ] && [ -n "${aug_ours}" ]; then
    model=${aug_ours} twin=${aug}
    bench "Speed: whole words, normalised by utterance, more speeds" words \
        --scope encoder,e2e --seconds 10,30 --batch-size 1 --num-threads 2 \
        --ngram-file exp/ngram_word/3gram.arpa  # words are its tokens: no lexicon
fi
model=$(all layerskip_word_large) twin=
[ -z "${model}" ] || bench "Speed: a larger model" large \
    --scope encoder,e2e --seconds 10,30 --batch-size 1 --num-threads 2
anchor() {  # <title>: what a link to it is called
    tr '[:upper:] ' '[:lower:]-' <<< "$1" | tr -cd '[:alnum:]_\n-'
}
{
    echo "<!-- Generated by local/results.sh after local/study.sh; do not edit. -->"
    printf '# Results on AN4\n\n'
    for title in "${titles[@]}"; do
        echo "- [${title}](#$(anchor "${title}"))"
    done
    for n in "${!pages[@]}"; do  # the page's own title gives way, its other headings go one down
        printf '\n## %s\n' "${titles[n]}"
        sed -E -e 1d -e 's/^#+ /#&/' "${pages[n]}"
    done
} > RESULTS.md
echo "$0: see RESULTS.md"
