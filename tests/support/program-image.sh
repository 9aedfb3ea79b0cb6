#!/usr/bin/env bash
# Makes a container image of programs of this machine, for tests where no registry can be reached:
#
#   program-image.sh NAME CHANGES PROGRAM...
#
# CHANGES are instructions of a Dockerfile, one a line, as in 'CMD ["redis-server"]'. In the image are the programs, the
# libraries that they name, and places to write to: /data, /prometheus, /tmp. A Docker daemon is started if none answers.
set -euo pipefail

name=$1
mapfile -t changes <<<"$2"
shift 2
"$(dirname "$0")/docker.sh"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{data,etc,prometheus,tmp,usr/bin}
chmod 1777 "$root"/{data,prometheus,tmp}
printf '%s\n' 'root:x:0:0::/:' 'redis:x:999:999::/data:' >"$root/etc/passwd"
for program in "$@"; do
  path=$(command -v "$program") || { echo "no image of $program: it is not on this machine" >&2; exit 1; }
  install -D "$(readlink -f "$path")" "$root/usr/bin/$program"
  # The libraries, at the places where the loader looks for them. A static program has none.
  { ldd "$path" 2>/dev/null || true; } | { grep -o '/[^ ]*' || true; } | while read -r library; do
    [ -e "$root$library" ] || install -D "$(readlink -f "$library")" "$root$library"
  done
done
[ ! -e "$root/usr/bin/busybox" ] || ln -s busybox "$root/usr/bin/wget"
tar -C "$root" -c . | docker import --change 'WORKDIR /data' "${changes[@]/#/--change=}" - "$name" >/dev/null
