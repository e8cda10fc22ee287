#!/usr/bin/env bash
# Makes a recipe directory for a new corpus: egs2/spire/setup.sh DIR
# Anywhere, or in an ESPnet checkout as egs2/<corpus>/<name>; DIR must not be there, or be empty.
set -euo pipefail

die() {
    echo "error: $*" >&2
    exit 1
}

if [ $# -ne 1 ] || [[ "$1" = -* ]] || [ -z "$1" ]; then
    echo "Usage: $0 DIR   (a recipe directory to make, e.g. egs2/mycorpus/spire1)"
    [ "${1:-}" = --help ] || [ "${1:-}" = -h ] || exit 2
    exit 0
fi
here="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)"
root="$(cd "${here}/../.." && pwd)"
if [ -e "$1" ] && [ ! -d "$1" ]; then die "$1 is a file; name a directory"; fi
if [ -d "$1" ] && [ -n "$(ls -A "$1")" ]; then
    die "$1 is there already and has files in it; name another directory, or remove it yourself"
fi
dir="$(realpath -m -- "$1")"

# In an ESPnet checkout recipes lie side by side, and TEMPLATE is one of them.
espnet=""
egs2="$(dirname "$(dirname "${dir}")")"
if [ -d "${egs2}/TEMPLATE/asr1" ]; then
    espnet="$(dirname "${egs2}")"
else
    above="${dir}"
    while [ "${above}" != / ]; do
        above="$(dirname "${above}")"
        [ ! -d "${above}/TEMPLATE/asr1" ] ||
            die "$1: in an ESPnet checkout a recipe is ${above}/<corpus>/<name>"
    done
fi

parent="$(dirname "${dir}")"
mkdir -p "${parent}"
new="$(mktemp -d "${parent}/.setup.XXXXXX")"
trap 'rm -rf "${new}"' EXIT
chmod 755 "${new}"
mkdir "${new}/local"

# Links within one tree are relative, so that it can be moved.
link() { # link FILE NAME
    local tree="${root}" target="$1"
    [[ "$1" = "${root}"/* ]] || tree="${espnet}"
    if [ -n "${tree}" ] && [[ "${dir}/" = "${tree}"/* ]]; then
        target="$(realpath -s -m --relative-to="${dir}/$(dirname "$2")" -- "$1")"
    fi
    ln -s "${target}" "${new}/$2"
}
link "${here}/spire.sh" spire.sh
link "${here}/path.sh" path.sh
link "${here}/${espnet:+espnet_}db.sh" db.sh
link "${root}/conf" conf
link "${here}/cmd.sh" cmd.sh
link "${root}/local/espnet_data.sh" local/espnet_data.sh
for name in utils steps; do
    kaldi="${espnet}/tools/kaldi/egs/wsj/s5/${name}"
    if [ -n "${espnet}" ] && [ -d "${kaldi}" ]; then link "${kaldi}" "${name}"; fi
done
# For its user to change: copies.
cp "${here}/template/run.sh" "${here}"/template/mixture_*.yaml "${new}"
cp "${here}/template/local/data.sh" "${new}/local"

if [ -d "${dir}" ]; then
    mv "${new}"/* "${dir}"
else
    mv -T "${new}" "${dir}"
fi

cat <<END
$1 is made. What is left to do there:
  1. local/data.sh: how your corpus becomes data/<set>; it shows three ways, keep one
  2. run.sh: names of the sets, languages, models and sizes; mixture_*.yaml: what is trained on
  3. ./run.sh --stop_stage 2   prepares and checks the data, ./run.sh does all stages
END
