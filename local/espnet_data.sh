#!/usr/bin/env bash
# Data preparation by a recipe of ESPnet's: runs its local/data.sh in place, imports what it leaves.
# --espnet_root DIR --recipe covost2/st1 --sets "THEIRS:OURS …" [-- OPTIONS OF ITS local/data.sh]
set -euo pipefail
# shellcheck disable=SC1091
. ./path.sh
exec "${SPIRE_PYTHON:-python3}" -m espnet_spire.bin.import_espnet "$@"
