# shellcheck shell=bash
# Sourced by a script: turns "--name value" and "--name=value" into variables.
#
# The options of a script are the lines "name=default  # comment" above the line that sources this
# file, and nothing else; --help prints them. An option that is not there is an error, as are a
# missing value, a value other than true or false for an option whose default is one of these, and
# a value that is not an integer for an option whose default is one. So is any other argument.
# A script with a line "name=default" that has no comment is read as Kaldi and ESPnet read theirs: every
# such line is an option, values are not checked, and what follows the options stays in "$@".
# (A value with $( or $1 in it is no default.)
# With parse_known_options=true, what is not an option of this script stays in "$@", in its order.

_po_script=${BASH_SOURCE[1]}
_po_lines=$(sed -e '/parse_options\.sh/,$d' "${_po_script}" | grep -E '^[a-z][a-z0-9_]*=' \
    | grep -vE '^parse_known_options=|^[^#]*\$[(0-9@*]' || true)
_po_kaldi=false
[ -z "${_po_lines}" ] || ! grep -qvE '^[a-z0-9_]+=([^#]* )?[[:space:]]*# ' <<< "${_po_lines}" || _po_kaldi=true
_po_known=${parse_known_options:-false}
_po_rest=()

_po_fail() {
    echo "${_po_script##*/}: error: $*" >&2
    echo "${_po_script##*/}: --help lists the options" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case "$1" in
        --help|-h)
            echo "Usage: ${_po_script##*/} [--name value]..."
            sed -E -e 's/^([a-z0-9_]+)=([^#]*[^# ])?[[:space:]]*(#[[:space:]]*(.*))?$/  --\1  \4 [default: \2]/' \
                <<< "${_po_lines}"
            if ! "${_po_known}"; then exit 0; fi
            _po_rest+=("$1"); shift; continue ;;
        --*=*) _po_name=${1%%=*}; _po_value=${1#*=}; _po_shift=1 ;;
        --?*) _po_name=$1; _po_value=${2-}; _po_shift=2 ;;
        *)
            if "${_po_kaldi}"; then _po_rest+=("$@"); break; fi
            if "${_po_known}"; then _po_rest+=("$1"); shift; continue; fi
            _po_fail "unexpected argument '$1' (an option looks like --name value)" ;;
    esac
    _po_name=${_po_name#--}
    _po_name=${_po_name//-/_}
    if ! grep -qE "^${_po_name}=" <<< "${_po_lines}" || [[ ! ${_po_name} =~ ^[a-z][a-z0-9_]*$ ]]; then
        "${_po_known}" || _po_fail "unknown option --${_po_name}"
        _po_rest+=("$1"); shift
        # The value of an option that is passed on goes with it.
        if [ "${_po_shift}" -eq 2 ] && [ $# -gt 0 ]; then _po_rest+=("$1"); shift; fi
        continue
    fi
    [ $# -ge "${_po_shift}" ] || _po_fail "--${_po_name}: a value is missing"
    _po_default=${!_po_name-}
    "${_po_kaldi}" && _po_default=
    if [[ ${_po_default} =~ ^(true|false)$ ]] && [[ ! ${_po_value} =~ ^(true|false)$ ]]; then
        _po_fail "--${_po_name} '${_po_value}': choose true or false"
    fi
    if [[ ${_po_default} =~ ^[0-9]+$ ]] && [[ ! ${_po_value} =~ ^[0-9]+$ ]]; then
        _po_fail "--${_po_name} '${_po_value}': an integer is needed"
    fi
    printf -v "${_po_name}" '%s' "${_po_value}"
    shift "${_po_shift}"
done
set -- ${_po_rest[@]+"${_po_rest[@]}"}
