#!/usr/bin/env bash
# What walkthroughs with several servers share; sourced after narrated.sh. Each site has a server on a free loopback port, with storage of
# its own in $work and a database of its own in the private PostgreSQL of the tests. Needs $certificate before the first `start`.
#
#   at SITE                    turns to one of them: its administrator, and its configuration for commands
#   start SITE [KEY=VALUE...]  starts its server with these keys of patch-sync, and logs in
#   stop SITE                  ends it, which must go well

declare -A url_of pid_of created
at() {
  export LIVEPATCH_URL=${url_of[$1]-} XDG_STATE_HOME=$work/$1/home LIVEPATCH_CONFIG_LOCATION=$work/$1/livepatch.yaml
}
on_finish() {
  local site
  for site in "${!pid_of[@]}"; do
    kill -TERM "${pid_of[$site]}" 2>/dev/null || true
    wait "${pid_of[$site]}" 2>/dev/null || true
    if [ "$1" != 0 ] && [ -s "$work/$site/log" ]; then
      echo "what the server at $site said:" >&2
      tail -n 40 "$work/$site/log" >&2
    fi
  done
}
createdb() {
  local bin
  bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1 || true)
  "${bin:+$bin/}psql" -q "$LIVEPATCH_TEST_DATABASE" -c "create database $1"
  created[$1]=1
}
# storage_of SITE: the lines of configuration that say where its patches are. A script that wants another place defines it anew.
storage_of() { printf 'patch-storage.filesystem-path: %s\n' "$work/$1/patches"; }

# The administrator's password is `walkthrough-chain` everywhere; this is its bcrypt hash.
readonly admin='admin:$2y$06$abcdefghijklmnopqrstuucNGLZJJJOrKIN6Gx0oDrGbTnQwJjlT.'

start() {
  local site=$1 setting address
  shift
  mkdir -p "$work/$site"
  [ -n "${created[sites_$site]-}" ] || createdb "sites_$site"
  cat >"$work/$site/livepatch.yaml" <<YAML
server.server-address: 127.0.0.1:0
database.connection-string: "${LIVEPATCH_TEST_DATABASE/dbname=postgres/dbname=sites_$site}"
$(storage_of "$site")
patch-trust.certificates: $certificate
auth.basic.enabled: true
auth.basic.users: '$admin'
YAML
  for setting in "$@"; do printf 'patch-sync.%s: %s\n' "${setting%%=*}" "${setting#*=}" >>"$work/$site/livepatch.yaml"; done
  livepatch-server serve --config "$work/$site/livepatch.yaml" >"$work/$site/log" 2>&1 &
  pid_of[$site]=$!
  # It says where it listens; the port was left to the system.
  serves "${pid_of[$site]}" "$work/$site/log"
  url_of[$site]=http://$address
  printf '\n     the server at %s runs: %s\n' "$site" "${url_of[$site]}"
  at "$site"
  password=walkthrough-chain
  log_in
}
stop() {
  local status=0
  kill -TERM "${pid_of[$1]}"
  wait "${pid_of[$1]}" || status=$?
  unset "pid_of[$1]"
  [ "$status" = 0 ] || fail "the server at $1 ended with exit code $status, 0 was expected"
  ! grep -qi 'panicked' "$work/$1/log" || fail "the server at $1 panicked: $(grep -i panicked "$work/$1/log")"
}
