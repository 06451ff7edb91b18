#!/usr/bin/env bash
# Makes what packages carry beside the binaries, from the binaries themselves: manual pages, completion scripts and the
# commented configuration file. Compressed where packages want it, so that nothing is left to the order in which a tool compresses.
#
#   packaging/stage.sh BIN_DIR DIR     writes DIR/{man1,man8,bash,zsh,fish}/ and DIR/livepatch.yaml
set -euo pipefail

[ $# -eq 2 ] || { echo "usage: packaging/stage.sh BIN_DIR DIR" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
server=$1/livepatch-server
[ -x "$server" ] || { echo "stage: $server is not there; build it first" >&2; exit 1; }

rm -rf "$2"
mkdir -p "$2/man8"
"$server" manual "$2"
cp "$here"/man/*.8 "$2/man8/"
{ cat "$here/livepatch.yaml.head" && "$server" config show --defaults; } >"$2/livepatch.yaml"
find "$2/man1" "$2/man8" -type f -exec gzip -9n {} +
gzip -9nc "$here/../CHANGELOG.md" >"$2/changelog.gz"
