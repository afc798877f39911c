# shellcheck shell=bash
# Sourced by a script: turns "--name value" and "--name=value" into variables.
#
# The options of a script are the lines "name=default  # comment" (the comment is needed) above the
# line that sources this file, and nothing else; --help prints them. An option that is not there is an error, as are a
# missing value, a value other than true or false for an option whose default is one of these, and
# a value that is not an integer for an option whose default is one.
# With parse_known_options=true, what is not an option of this script stays in "$@", in its order.

_po_script=${BASH_SOURCE[1]}
_po_lines=$(sed -e '/parse_options\.sh/,$d' "${_po_script}" | grep -E '^[a-z][a-z0-9_]*=([^#]* )?[[:space:]]*# ' || true)
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
