#!/usr/bin/env bash
# Data of the low-resource recipe: data/{train,dev,test} with wav.scp, text, utt2spk, spk2utt and
# text.tc.<target language>.
#   --source DIR   data directories DIR/{train,dev,test} (other names: --sets "train dev test"), whose
#                  files are linked here; relative paths in wav.scp are seen from this directory
#   --mini true    a spoken toy corpus instead; further options are those of mini_corpus
set -euo pipefail
# shellcheck disable=SC1091
. ./path.sh

source_dir="" sets="train dev test" mini=false rest=()
while [ $# -gt 0 ]; do
    case "$1" in
    --source | --sets | --mini)
        [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 1; }
        case "$1" in
        --source) source_dir="$2" ;;
        --sets) sets="$2" ;;
        --mini) mini="$2" ;;
        esac
        shift 2
        ;;
    *)
        rest+=("$1")
        shift
        ;;
    esac
done

if [ "${mini}" = true ]; then
    exec "${SPIRE_PYTHON:-python3}" -m espnet_spire.bin.mini_corpus --out data --downloads downloads \
        "${rest[@]}"
fi
for set in ${sets}; do
    if [ -n "${source_dir}" ]; then
        [ -d "${source_dir}/${set}" ] || { echo "error: ${source_dir}/${set}: no such data directory" >&2; exit 1; }
        mkdir -p "data/${set}"
        ln -sf "$(realpath "${source_dir}/${set}")"/* "data/${set}/"
    fi
    for file in wav.scp text utt2spk; do
        [ -f "data/${set}/${file}" ] || {
            echo "error: data/${set}/${file} is missing: put or link your data directories there, or" \
                "say where they are: --local_data_opts \"--source DIR\"" >&2
            exit 1
        }
    done
done
