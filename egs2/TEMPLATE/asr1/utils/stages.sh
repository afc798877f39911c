# shellcheck shell=bash
# Sourced by asr.sh: the small functions that its stages are written with.

# log MESSAGE: time, script, line, and the message
log() {
    local at=${log_at:-0}
    echo -e "$(date '+%Y-%m-%dT%H:%M:%S') (${BASH_SOURCE[at + 1]##*/}:${BASH_LINENO[at]}:${FUNCNAME[at + 1]}) $*"
}

# die MESSAGE: a usage error or a missing input
die() {
    log_at=1 log "Error: $*" >&2
    exit 2
}

# wants NUMBER: tell whether this stage is to run
wants() {
    # shellcheck disable=SC2154
    [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ] && [[ " ${skip_stages} " != *" $1 "* ]]
}

_stage_name=
_stage_start=0

# begin MESSAGE, end NUMBER: the first and the last line of a stage
begin() {
    _stage_name=${1%%:*}
    _stage_start=${SECONDS}
    log_at=1 log "$*"
}
end() {
    _stage_name=
    log_at=1 log "Stage $1: done [elapsed=$((SECONDS - _stage_start))s]"
}
_report_failure() {
    local status=$?
    if [ "${status}" -ne 0 ] && [ -n "${_stage_name}" ]; then
        echo "$(date '+%Y-%m-%dT%H:%M:%S') ${_stage_name} failed with status ${status}" \
            "[elapsed=$((SECONDS - _stage_start))s]; what went wrong is above" >&2
    fi
}
trap _report_failure EXIT

# recipe MODULE ARGS...: run one of our helper programs; they need no ESPnet and start at once
recipe() {
    local module=$1
    shift
    # shellcheck disable=SC2154
    "${python}" -m "espnet_layerskip.recipe.${module}" "$@"
}

# hold DIR: wait until no other run works on a directory; keep others out until the next hold
hold() {
    local status=0
    mkdir -p "$1"
    command -v flock > /dev/null || return 0
    exec 8>> "$1/.lock"
    flock -n 8 || status=$?
    if [ "${status}" -eq 1 ]; then
        log_at=1 log "Another run works on '$1': this one waits until it ends"
        flock 8
    fi
}

# add_dimension FILE N TARGET: a table of shapes with one dimension more, written in one step
add_dimension() {
    sed -e "s/\$/,$2/" "$1" > "$3.partial"
    mv "$3.partial" "$3"
}

# write_run_sh DIR STAGE: hold a directory; write a script into it that goes on from a stage
write_run_sh() {
    mkdir -p "$1"
    hold "$1"
    # shellcheck disable=SC2154
    printf '#!/usr/bin/env bash\ncd %q && %s--stage %s "$@"\n' "${PWD}" "${run_args}" "$2" > "$1/run.sh.partial"
    chmod +x "$1/run.sh.partial"
    mv "$1/run.sh.partial" "$1/run.sh"
    log_at=1 log "'$1/run.sh' goes on from stage $2"
}

# need_file FILE HINT and need_config FILE: stop where an input is missing
need_file() {
    [ -f "$1" ] || die "no such file: $1; $2"
}
need_symbols() {
    [ "${nlsyms_txt}" = none ] || need_file "${nlsyms_txt}" "--nlsyms_txt names it; none: no symbols are kept whole"
}
need_config() {
    [ -z "$1" ] || need_file "$1" "configurations here: $(find -L conf -name '*.yaml' -printf '%p ' 2> /dev/null)"
}

# need_model: stop where the trained model is missing
need_model() {
    # shellcheck disable=SC2154
    need_file "${asr_exp}/config.yaml" "stage 11 makes it"
    # shellcheck disable=SC2154
    need_file "${asr_exp}/${inference_asr_model}" "choose one with --inference_asr_model: $(
        find "${asr_exp}" -maxdepth 1 -name 'valid.*.pth' -printf '%f ')"
}

# told NAME|NAME CONFIG ARGS: what a decoding is told of an option, arguments first; may be empty
told() {
    local found
    found=$(sed -nE "s/.*--($1)[ =]+['\"]?([^ '\"]+).*/\2/p" <<< "$3")
    if [ -z "${found}" ] && [ -n "$2" ] && [ -f "$2" ]; then
        found=$(sed -nE "s/^($1):[[:space:]]*['\"]?([^ '\"#]+).*/\2/p" "$2")
    fi
    echo "${found}"
}

# words STRING: set the array `words` to the words of a string of options; quotes and \ keep spaces
words() {
    xargs -r true <<< "$1" || die "a quote is not closed: $1"
    mapfile -d '' -t words < <(xargs -r printf '%s\0' <<< "$1")
}

# files LIST: set the array `words` to the one file (or directory) that a list names, else to its words
files() {
    if [ -e "$1" ]; then words=("$1"); else words "$1"; fi
}

# min N...: the smallest number
min() {
    printf '%s\n' "$@" | sort -n | head -n 1
}
