#!/usr/bin/env bash
# The mini recipe's models, trained here in place of downloads: a small HuBERT, a small TowerBase.
set -euo pipefail
# shellcheck disable=SC1091
. ./path.sh

expdir=exp dumpdir=dump train_set="" python=python3 encoder="" base_model=""
hubert_config=conf/mini_hubert.yaml tower_config=conf/mini_tower.yaml tower_langs=en,de,fr,zh
while [ $# -gt 0 ]; do
    name="${1#--}"
    case "${name}" in
    expdir | dumpdir | train_set | python | encoder | base_model | hubert_config | tower_config | tower_langs)
        [ $# -ge 2 ] || { echo "error: --${name} needs a value" >&2; exit 1; }
        declare "${name}=$2"
        shift 2
        ;;
    *)
        echo "error: local/models.sh: unknown option $1" >&2
        exit 1
        ;;
    esac
done
step() { "${python}" -m espnet_spire.bin.run_step --expdir "${expdir}" "$@"; }

dirs=() tables=()
for set in ${train_set}; do
    dirs+=("${dumpdir}/raw/${set}")
    tables+=("${dumpdir}/raw/${set}/utt2num_samples")
done
read -r -a langs <<<"${tower_langs//,/ }"
texts=(data/text_mono data/text_parallel)

step --name "3 small Tower (stand-in)" --hint "run stage 1 first" \
    --inputs "${texts[@]}" "${tower_config}" --outputs "${base_model}" -- \
    "${python}" -m espnet_spire.bin.mini_tower --mono_dir data/text_mono \
    --parallel_dir data/text_parallel --langs "${langs[@]}" --config "${tower_config}" --out "${base_model}"
step --name "3 small HuBERT (stand-in)" --hint "run stage 2 first" \
    --inputs "${tables[@]}" "${hubert_config}" --outputs "${encoder}" -- \
    "${python}" -m espnet_spire.bin.mini_hubert --data_dir "${dirs[@]}" \
    --config "${hubert_config}" --out "${encoder}"
