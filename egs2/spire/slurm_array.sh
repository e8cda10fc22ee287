#!/usr/bin/env bash
# Runs jobs as a Slurm job array and waits for them; called as Kaldi's slurm.pl:
#   slurm_array.sh [options of sbatch] JOB=1:8 log/units.JOB.log COMMAND…
# JOB as a word of the command is the number of the job. Ends with the highest status of the jobs;
# when it is ended itself, the jobs are cancelled.
set -euo pipefail

options=()
while [ $# -gt 0 ] && [[ "$1" != JOB=* ]]; do
    options+=("$1")
    shift
done
if [ $# -lt 3 ]; then
    echo "error: $0: [options of sbatch] JOB=1:N LOG COMMAND… was expected" >&2
    exit 2
fi
range="${1#JOB=}" log="$2"
shift 2
command=""
for word in "$@"; do
    if [ "${word}" = JOB ]; then
        command+=" \"\${SLURM_ARRAY_TASK_ID}\""
    else
        command+=" '${word//\'/\'\\\'\'}'" # for any sh, which is what sbatch runs it with
    fi
done

id="$(mktemp)"
cancel() {
    # the number, and behind a ; the cluster
    [ ! -s "${id}" ] || scancel "$(cut -d ';' -f 1 "${id}")" || true
    exit 143
}
trap 'rm -f "${id}"' EXIT
trap cancel TERM INT HUP
sbatch --parsable --wait --array "${range/:/-}" --output "${log//JOB/%a}" --open-mode truncate \
    --job-name "$(basename "${log%%.JOB*}" .log)" "${options[@]}" --wrap "exec${command}" >"${id}" &
submitted=$!
wait "${submitted}"
