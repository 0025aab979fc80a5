#!/bin/sh
# rclone over a folder of this machine. The file "fault" beside it names a command and what goes wrong in it.
here=$(dirname "$0")
verb=$1
shift
echo "$verb $*" >>"$here/calls"
read -r broken kind 2>/dev/null <"$here/fault"
[ "$broken" = "$verb" ] || kind=
for word in "$@"; do
    case $word in
    --offset=*) offset=${word#*=} ;;
    --count=* | --head=*) count=${word#*=} ;;
    fake:*) from=${to:-${word#fake:}} to=${word#fake:} ;;
    /*) from=${from:-$word} to=$word ;;
    esac
done
fail() {
    echo "2026/11/28 12:00:00 Failed to $verb: read tcp: connection reset by peer" >&2
    exit 1
}
[ "$kind" = fail ] && fail
[ "$kind" = hang ] && exec sleep 30
case $verb in
lsjson)
    [ "$kind" = garbage ] && echo '[{"Name": 7}]' && exit 0
    [ -d "$from" ] || exit 3
    printf '['
    for file in "$from"/.*.tmp "$from"/*; do
        [ -f "$file" ] && printf '%s{"Name":"%s","Size":%s,"ModTime":"%s"}' "$comma" "${file##*/}" \
            "$(stat -c %s "$file")" "$(stat -c %y "$file")" && comma=,
    done
    printf ']'
    ;;
cat)
    [ "$kind" = cut ] && [ -n "$offset" ] && tail -c "+$((offset + 1))" "$from" | head -c 1000 && fail
    tail -c "+$((${offset:-0} + 1))" "$from" | head -c "$count"
    ;;
copyto)
    mkdir -p "$(dirname "$to")"
    [ "$kind" = cut ] && head -c 1000 "$from" >"$to" && fail
    cp "$from" "$to"
    ;;
moveto) mv "$from" "$to" ;;
deletefile) rm "$from" ;;
esac
