# shellcheck shell=bash
# db.sh of a recipe inside an ESPnet checkout: what the checkout's own db.sh sets, and for what that
# leaves empty SPIRE's. Of its places for downloads (FLEURS=downloads) only those that are there.
espnet_db=../../TEMPLATE/asr1/db.sh
if [ -f "${espnet_db}" ]; then
    # shellcheck disable=SC2016 # expanded by that other shell
    show='set -a; . "$1"; env'
    while IFS='=' read -r name value; do
        case "${name}" in
        '' | *[!A-Z0-9_]* | _ | PATH | HOME | PWD | OLDPWD | SHLVL) continue ;;
        esac
        if [ -z "${!name:-}" ] && [[ "${value}" = /* || ( -n "${value}" && -e "${value}" ) ]]; then
            export "${name}=${value}"
        fi
    done < <(env -i PATH="${PATH}" HOME="${HOME:-/}" bash -c "${show}" bash "${espnet_db}")
fi
# shellcheck source-path=SCRIPTDIR disable=SC1091
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/db.sh"
