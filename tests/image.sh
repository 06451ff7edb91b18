#!/usr/bin/env bash
# The image, told step by step: it is built from the Dockerfile without any registry, looked into, and run.
#
#   tests/image.sh     (or `make test-image`, which builds first)
#
# The base is this machine's distribution, made by debootstrap from its packages and kept under target/tools/image. The programs are
# those in LIVEPATCH_BIN_DIR (target/debug if it is not set), without their debug information; so the stage that compiles is not
# tried here. It is run with chroot and the image's user, environment and command. Needs what `tests/setup.sh image` installs, and
# root, or sudo. Leaves nothing behind but the base.
set -euo pipefail
if [ -z "${LIVEPATCH_TEST_DATABASE:-}" ]; then
  exec "$(dirname "${BASH_SOURCE[0]}")/services.sh" "${BASH_SOURCE[0]}" "$@"
fi
name=image
. "$(dirname "${BASH_SOURCE[0]}")/narrated.sh"
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n -- "$@"; fi; }
mounted=''
on_finish() {
  [ -z "$mounted" ] || as_root umount "$mounted" || true
  as_root rm -rf --one-file-system "$work/store" "$work/rootfs"
}
# A store of images of this run's own.
buildah() { as_root env BUILDAH_ISOLATION=chroot buildah --storage-driver vfs --root "$work/store/root" --runroot "$work/store/run" "$@"; }

step "A base of this machine's distribution, from its packages (kept for the next time)."
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:?}")
base=$root/target/tools/image/$suite.tar
if [ ! -s "$base" ]; then
  mkdir -p "${base%/*}"
  as_root env PATH="$PATH:/usr/sbin:/sbin" debootstrap --variant=minbase --include=ca-certificates,openssl,libssl3 "$suite" "$work/rootfs" >"$work/debootstrap.log" 2>&1 ||
    { tail -n 20 "$work/debootstrap.log" >&2; fail "the base could not be made"; }
  as_root rm -rf "$work/rootfs/var/cache/apt" "$work/rootfs/var/lib/apt/lists" "$work/rootfs/dev"
  as_root tar -C "$work/rootfs" -cf "$work/base.tar" .
  cp "$work/base.tar" "$base.$$"
  mv "$base.$$" "$base"
fi
container=$(buildah from scratch)
buildah add --quiet "$container" "$base" / >/dev/null
buildah commit --quiet "$container" localhost/base >/dev/null
buildah rm "$container" >/dev/null
printf '\n     %s, %s MiB\n' "$suite" "$(($(stat -c %s "$base") >> 20))"

step "The image is built from the Dockerfile; its programs are given."
# A context like the project's, with programs in it and with what must not get into an image.
context=$work/context
mkdir -p "$context/target/image-binaries" "$context/.git"
cp -R "$root"/{Dockerfile,.dockerignore,Cargo.toml,Cargo.lock,src,migrations,benches,packaging,tests} "$context/"
for program in livepatch-server livepatch-admin livepatch-client; do
  strip -o "$context/target/image-binaries/$program" "$bin/$program"
done
canary=canary-$$-$RANDOM
for secret in .env .git/config src/../secret.pem target/other; do echo "$canary" >"$context/$secret"; done
build() {
  buildah bud --quiet --format docker --timestamp 1764288000 --build-arg BASE=localhost/base --build-arg BINARIES=given \
    --build-arg VERSION=1.2.3 --build-arg REVISION=abc --build-arg SOURCE_DATE_EPOCH=1764288000 --no-cache -t "localhost/$1" "$context"
}
build livepatch >"$work/build.log" 2>&1 || { tail -n 30 "$work/build.log" >&2; fail "the image was not built"; }
build livepatch-again >"$work/build.log" 2>&1 || { tail -n 30 "$work/build.log" >&2; fail "the image was not built again"; }

step "What it says of itself."
inspect() { buildah inspect --type image --format "$1" "localhost/${2:-livepatch}"; }
is() { [ "$2" = "$3" ] || fail "$1 is '$2', '$3' was expected"; printf '     %s: %s\n' "$1" "$2"; }
is user "$(inspect '{{.Docker.Config.User}}')" 65532:65532
is entrypoint "$(inspect '{{.Docker.Config.Entrypoint}} {{.Docker.Config.Cmd}}')" '[/usr/bin/livepatch-server] [serve]'
is health "$(inspect '{{.Docker.Config.Healthcheck.Test}}')" '[CMD /usr/bin/livepatch-server healthcheck]'
is signal "$(inspect '{{.Docker.Config.StopSignal}}')" SIGTERM
is version "$(inspect '{{index .Docker.Config.Labels "org.opencontainers.image.version"}}')" 1.2.3
is revision "$(inspect '{{index .Docker.Config.Labels "org.opencontainers.image.revision"}}')" abc
is licence "$(inspect '{{index .Docker.Config.Labels "org.opencontainers.image.licenses"}}')" Apache-2.0
# The identifier of an image of this form holds that of the container it was made in; its files do not.
is 'files, made again' "$(inspect '{{.OCIv1.RootFS.DiffIDs}}' livepatch-again)" "$(inspect '{{.OCIv1.RootFS.DiffIDs}}')"

step "What is in it."
container=$(buildah from --pull-never localhost/livepatch)
inside=$(buildah mount "$container")
listing=$(as_root find "$inside" -mindepth 1 -printf '%y %m %U:%G %p\n' | sed "s|$inside||")
for program in livepatch-server livepatch-admin livepatch-client; do grep -q "^f 755 0:0 /usr/bin/$program$" <<<"$listing" || fail "$program is missing"; done
! grep -E '/(sh|bash|dash|apt|dpkg|perl|python[0-9.]*|su|sudo)$' <<<"$listing" || fail "there should be no shell and no such program"
! grep -E '_history$|/root/|/\.cargo|/\.git|/cache/|/apt/|\.(pem|key)$' <<<"$(grep -v '/usr/lib/ssl/cert.pem$' <<<"$listing")" || fail "that should not be in the image"
! grep -E '^[fd] [2467][0-7]{3} ' <<<"$listing" || fail "no file should give rights"
is 'owned by its user' "$(awk '$3 == "65532:65532" { print $4 }' <<<"$listing" | xargs)" /var/lib/livepatch
! as_root grep -rlF "$canary" "$inside" || fail "what the context is to ignore is in the image"
! as_root grep -rlF "$canary" "$work/store/root/vfs" || fail "what the context is to ignore is in a layer"
size=$(as_root du -sm --apparent-size "$inside" | cut -f 1)
programs=$(as_root du -cm --apparent-size "$inside"/usr/bin | tail -n 1 | cut -f 1)
printf '     %s files, %s MiB, of which the programs %s MiB\n' "$(grep -c '^f' <<<"$listing")" "$size" "$programs"
[ $((size - programs)) -le 15 ] || fail "beside the programs there should be at most 15 MiB"

step "It runs: as its user, with its environment, from its root."
inside_run() {
  local given=()
  while [[ $1 == *=* ]]; do given+=("$1"); shift; done
  as_root env -i PATH=/usr/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt "${given[@]}" /usr/sbin/chroot --userspec=65532:65532 --groups= "$inside" "$@"
}
for program in livepatch-server livepatch-admin livepatch-client; do
  run inside_run "/usr/bin/$program" --version
  says "$program "
done
# In a container it has an address of its own; here a port that is free.
run inside_run LP_DATABASE_CONNECTION_STRING=host=db LP_PATCH_TRUST_POLICY=off /usr/bin/livepatch-server config show
says '0.0.0.0:8080'
socket=$(sed 's/.*host=\([^ ]*\).*/\1/' <<<"$LIVEPATCH_TEST_DATABASE")
as_root mkdir "$inside/postgresql"
as_root mount --bind "$socket" "$inside/postgresql"
mounted=$inside/postgresql
openssl req -x509 -newkey rsa:4096 -nodes -keyout /dev/null -out "$work/signing.pem" -subj '/CN=Signing' -days 30 2>/dev/null
as_root install -m 644 "$work/signing.pem" "$inside/etc/signing.pem"
inside_run LP_SERVER_SERVER_ADDRESS=127.0.0.1:0 LP_PATCH_TRUST_CERTIFICATES=/etc/signing.pem \
  LP_DATABASE_CONNECTION_STRING='host=/postgresql user=livepatch dbname=postgres' /usr/bin/livepatch-server serve >"$work/server.log" 2>&1 &
server=$!
serves "$server" "$work/server.log"
run inside_run LIVEPATCH_URL="http://$address" /usr/bin/livepatch-server healthcheck
run inside_run LIVEPATCH_URL="http://$address" /usr/bin/livepatch-server healthcheck --dependencies
process=
for candidate in /proc/[0-9]*; do
  [ "$(tr '\0' ' ' <"$candidate/cmdline" 2>/dev/null)" = '/usr/bin/livepatch-server serve ' ] || continue
  [ "$(stat -c %u "$candidate")" = 65532 ] && process=${candidate#/proc/}
done
[ -n "$process" ] || fail "no server runs as 65532"
is 'runs as' "$(stat -c %u:%g "/proc/$process")" 65532:65532
as_root kill -TERM "$process"
status=0
wait "$server" || status=$?
server=
[ "$status" = 0 ] || fail "the server ended with exit code $status, 0 was expected"
status=0
inside_run LIVEPATCH_URL="http://$address" /usr/bin/livepatch-server healthcheck >/dev/null 2>&1 || status=$?
is 'healthcheck without a server ends with' "$status" 1

printf '\nimage: all %s steps went as told.\n' "$steps"
