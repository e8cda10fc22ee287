#!/usr/bin/env bash
# The paper's corpora, from where db.sh says they are to data/<set>: a step for each set, in the
# order of conf/full_corpora.yaml. Options: see prepare_corpora --help.
set -euo pipefail
set -a # the variables of db.sh are for the command
# shellcheck disable=SC1091
. ./db.sh
set +a
# shellcheck disable=SC1091
. ./path.sh
exec "${SPIRE_PYTHON:-python3}" -m espnet_spire.bin.prepare_corpora --out data "$@"
