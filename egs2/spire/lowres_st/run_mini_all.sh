#!/usr/bin/env bash
# Four systems, in miniature: CPT on ASR first or not, with and without distillation. Options go to
# each of them; what they share is done once.
set -euo pipefail

for cpt_first in true false; do
    for distill in false true; do
        ./run_mini.sh --cpt_first "${cpt_first}" --distill "${distill}" "$@"
    done
done
