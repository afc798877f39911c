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

# write_run_sh DIR STAGE: write a script that goes on from a stage
write_run_sh() {
    mkdir -p "$1"
    # shellcheck disable=SC2154
    printf '#!/usr/bin/env bash\ncd %q && %s--stage %s "$@"\n' "${PWD}" "${run_args}" "$2" > "$1/run.sh"
    chmod +x "$1/run.sh"
    log_at=1 log "'$1/run.sh' goes on from stage $2"
}

# need_file FILE HINT and need_config FILE: stop where an input is missing
need_file() {
    [ -f "$1" ] || die "no such file: $1; $2"
}
need_config() {
    [ -z "$1" ] || need_file "$1" "configurations here: $(find -L conf -name '*.yaml' -printf '%p ' 2> /dev/null)"
}

# told_threshold CONFIG ARGS: the blank_threshold that a decoding is told, arguments first; may be empty
told_threshold() {
    local told
    told=$(sed -nE "s/.*--blank_threshold[ =]+['\"]?([^ '\"]+).*/\1/p" <<< "$2")
    if [ -z "${told}" ] && [ -n "$1" ]; then
        told=$(sed -nE "s/^blank_threshold:[[:space:]]*['\"]?([^ '\"#]+).*/\1/p" "$1")
    fi
    echo "${told}"
}

# min N...: the smallest number
min() {
    printf '%s\n' "$@" | sort -n | head -n 1
}
