#!/usr/bin/env bash
# Copies what is new or newer on a mounted file share into a container, by AzCopy.
#   deploy/azure/copy-share.sh /mnt/share 'https://imaginglake.blob.core.windows.net/incoming'
# Signing in is AzCopy's: AZCOPY_AUTO_LOGIN_TYPE=MSI on a machine with an identity, or a SAS at the end of the address.
# Run it again as often as you like: what lies in the container already and is no older is left alone. Nothing is deleted
# on either side. Exit 0: everything is there; 1: some folders are not complete, run it again; 2: it could not begin.
set -uo pipefail
export LC_ALL=C

refuse() { echo "copy-share: $1" >&2; exit 2; }
[ $# -eq 2 ] || refuse "give the folder of the mounted share and the address of the container"
share=${1%/} container=${2%%\?*} signature=
[ "$2" = "$container" ] || signature="?${2#*\?}"
azcopy=${AZCOPY:-azcopy}
command -v "$azcopy" >/dev/null || refuse "AzCopy is not there: install it, or name it in AZCOPY"
[ -d "$share" ] || refuse "the share is not there: is it mounted?"
# An unmounted share is an empty folder, and an empty folder copied is a success that nobody wants.
[ -n "$(ls -A "$share")" ] || refuse "the share is empty: is it mounted?"

# AzCopy's logs hold paths, and paths hold names of patients: for the account that runs this alone.
umask 077
export AZCOPY_LOG_LOCATION=${AZCOPY_LOG_LOCATION:-$HOME/.azcopy}
mkdir -p "$AZCOPY_LOG_LOCATION" || refuse "the folder of AzCopy's logs cannot be made"

encode() {
    local text=$1 at byte
    for ((at = 0; at < ${#text}; at++)); do
        byte=${text:at:1}
        case $byte in
            [A-Za-z0-9._~-]) printf %s "$byte" ;;
            *) printf '%%%02X' "$(($(printf %d "'$byte") & 255))" ;;
        esac
    done
}

copy() {
    "$azcopy" sync "$@" --from-to=LocalBlob --delete-destination=false --put-md5 --log-level=ERROR \
        --output-level=essential --skip-version-check >>"$AZCOPY_LOG_LOCATION/copy-share.log" 2>&1
}

# A job keeps a list of its files, and AzCopy's makers advise fewer than ten million in each: so a folder at the top is a
# job. A job takes two seconds at least: a share with more folders than this is one job.
most=100
folders=()
while IFS= read -r -d '' folder; do folders+=("$folder"); done < <(find "$share" -mindepth 1 -maxdepth 1 -type d -print0)
if [ "${#folders[@]}" -gt "$most" ]; then
    copy "$share" "$container$signature" --recursive && { echo "$(date -u +%FT%TZ) complete"; exit 0; }
    echo "copy-share: not complete; what AzCopy says lies in $AZCOPY_LOG_LOCATION; run this again" >&2
    exit 1
fi
failed=0
copy "$share" "$container$signature" --recursive=false || failed=$((failed + 1))
for number in "${!folders[@]}"; do
    folder=${folders[number]}
    copy "$folder" "$container/$(encode "${folder##*/}")$signature" --recursive && outcome=complete || outcome="not complete"
    [ "$outcome" = complete ] || failed=$((failed + 1))
    echo "$(date -u +%FT%TZ) folder $((number + 1)) of ${#folders[@]}: $outcome"
done
[ "$failed" -eq 0 ] && exit 0
echo "copy-share: $failed of $((${#folders[@]} + 1)) jobs are not complete; what AzCopy says lies in $AZCOPY_LOG_LOCATION; run this again" >&2
exit 1
