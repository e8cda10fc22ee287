#!/usr/bin/env bash
# The mini recipe's corpus: espeak-ng speaks sentences of a small grammar (no download).
set -euo pipefail
# shellcheck disable=SC1091
. ./path.sh
exec "${SPIRE_PYTHON:-python3}" -m espnet_spire.bin.mini_corpus --out data --downloads downloads "$@"
