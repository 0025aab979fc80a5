#!/usr/bin/env bash
# rclone over a folder of this machine. The file "fault" beside it names a command and what goes wrong in it.
set -euo pipefail
here=$(dirname "$0")
verb=$1
shift
echo "$verb $*" >>"$here/calls"
broken='' kind='' offset=0 count='' from='' to='' between=''
if [[ -e $here/fault ]]; then
    read -r broken kind <"$here/fault"
fi
if [[ $broken != "$verb" ]]; then
    kind=''
fi
for word in "$@"; do
    case $word in
    --offset=*) offset=${word#*=} ;;
    --count=* | --head=*) count=${word#*=} ;;
    fake:* | /*) from=${to:-${word#fake:}} to=${word#fake:} ;;
    esac
done
fail() {
    echo "2026/11/28 12:00:00 Failed to $verb: read tcp: connection reset by peer" >&2
    exit 1
}
bytes() {
    dd if="$from" iflag=skip_bytes,count_bytes skip="$1" count="$2" status=none
}
case $verb-$kind in
*-fail) fail ;;
*-hang) exec sleep 30 ;;
lsjson-garbage) echo '[{"Name": 7}]' ;;
lsjson-)
    [[ -d $from ]] || exit 3
    printf '['
    for file in "$from"/.*.tmp "$from"/*; do
        if [[ -f $file ]]; then
            printf '%s{"Name":"%s","Size":%s,"ModTime":"%s"}' "$between" "${file##*/}" \
                "$(stat -c %s "$file")" "$(stat -c %y "$file")"
            between=,
        fi
    done
    printf ']'
    ;;
cat-cut)
    [[ $* == *--offset=* ]] || exec head -c "$count" "$from"
    bytes "$offset" 1000
    fail
    ;;
cat-) bytes "$offset" "$count" ;;
copyto-cut)
    mkdir -p "$(dirname "$to")"
    head -c 1000 "$from" >"$to"
    fail
    ;;
copyto-)
    mkdir -p "$(dirname "$to")"
    cp "$from" "$to"
    ;;
moveto-) mv "$from" "$to" ;;
deletefile-) rm "$from" ;;
*) exit 64 ;;
esac
