#!/usr/bin/env bash
# Models of the low-resource recipe. At full size there is nothing to do: they are local directories
# or hub names. With --mini true the stand-ins of the mini recipe are trained; their small Tower has
# not seen the language that is spoken.
set -euo pipefail

mini=false rest=()
while [ $# -gt 0 ]; do
    if [ "$1" = --mini ]; then
        mini="$2"
        shift 2
    else
        rest+=("$1")
        shift
    fi
done
[ "${mini}" != true ] || exec ./local/mini_models.sh "${rest[@]}"
