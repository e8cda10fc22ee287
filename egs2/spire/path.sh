# shellcheck shell=bash
# Sourced by the recipes: finds the package and its environment, from wherever this is linked.
SPIRE_ROOT="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)"
export SPIRE_ROOT
if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "${SPIRE_ROOT}/.venv/bin/python" ]; then
    export PATH="${SPIRE_ROOT}/.venv/bin:${PATH}"
fi
export PYTHONPATH="${SPIRE_ROOT}${PYTHONPATH:+:${PYTHONPATH}}"
export PYTHONUTF8=1
# Tables are sorted in the C locale whatever the user's language is.
export LC_ALL=C
# Models and data are local directories or in the hub's cache already, unless a user says otherwise.
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
export TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"
export HF_DATASETS_DISABLE_PROGRESS_BARS="${HF_DATASETS_DISABLE_PROGRESS_BARS:-1}"
export HF_HUB_DISABLE_PROGRESS_BARS=1
# Threads that wait must sleep: spinning ones stop each other when a machine is shared.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
