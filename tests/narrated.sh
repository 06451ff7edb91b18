# What the narrated tests share (tests/walkthrough.sh, tests/kernel/run.sh): a place that vanishes, how a step is told and
# checked, a server and its administrator. To be sourced by a bash script that has set `name`, what it calls itself.
#
# LIVEPATCH_BIN_DIR says where the commands are; target/debug if it is not set. Everything is in $work, which is deleted at
# the end, whatever happens. A script that starts something else that has to end defines `on_finish`; it gets the status.
set -euo pipefail
shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$(cd "${LIVEPATCH_BIN_DIR:-$root/target/debug}" && pwd)
for command in livepatch-server livepatch-admin livepatch-client; do
  [ -x "$bin/$command" ] || { echo "$name: $bin/$command is not there; build it: cargo build --bins" >&2; exit 1; }
done
export LIVEPATCH_BIN_DIR=$bin PATH=$bin:$PATH

work=$(mktemp -d "${TMPDIR:-/tmp}/livepatch-$name.XXXXXX")
# As root, the server runs PostgreSQL under another account, which has to reach its data in here.
chmod 755 "$work"
# The session of whoever runs this is not touched, and what their shell says about servers does not count.
export XDG_STATE_HOME=$work/home
unset LIVEPATCH_URL LIVEPATCH_CA_CRT LIVEPATCH_ADMIN_AUTH LIVEPATCH_ADMIN_PASSWORD LIVEPATCH_CLIENT_STATE_DIR

server=
on_finish() { :; }
finish() {
  local status=$?
  trap - EXIT
  [ "$status" = 0 ] || printf '\n%s: FAILED (exit code %s)\n' "$name" "$status" >&2
  on_finish "$status" || true
  if [ -n "$server" ]; then
    kill -TERM "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  if [ "$status" != 0 ] && [ -s "$work/server.log" ]; then
    echo "what the server said:" >&2
    tail -n 40 "$work/server.log" >&2
  fi
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- How it is told ---------------------------------------------------------------------------------------------------

steps=0
step() { steps=$((steps + 1)); printf '\n%s. %s\n' "$steps" "$*"; }
fail() { printf '\n%s: %s\n' "$name" "$*" >&2; exit 1; }

# Shows a command, runs it, shows what it says; its output is then in $said. It has to succeed.
said=
run() {
  local status=0
  printf '\n   $ %s\n' "${*//$work/\$WORK}"
  said=$("$@" 2>&1) || status=$?
  printf '%s\n' "${said//$work/\$WORK}" | sed 's/^/     /'
  [ "$status" = 0 ] || fail "that command ended with exit code $status, 0 was expected"
}

# What the last command has to have said, or not to have said.
says() { [[ $said == *"$1"* ]] || fail "the last command should have said: $1"; }
says_not() { [[ $said != *"$1"* ]] || fail "the last command should not have said: $1"; }

# comes PATTERN COMMAND...: waits until what a command says matches that; it is then in $said. Two minutes are far more than it takes.
comes() {
  local wanted=$1 end=$((SECONDS + 120))
  shift
  until said=$("$@" 2>&1) && [[ $said =~ $wanted ]]; do
    [ "$SECONDS" -lt "$end" ] || fail "\"$*\" should have said $wanted in the end; it said: $said"
    sleep 0.25
  done
}
# serves PID LOG: waits until a server that was started says in its log where it listens; that is then in $address.
serves() {
  local end=$((SECONDS + 60))
  until address=$(grep -sm1 serving "$2" | grep -o '127\.0\.0\.1:[0-9]*' | head -n 1); do
    kill -0 "$1" 2>/dev/null || fail "the server ended by itself: ${2#"$work/"}"
    [ "$SECONDS" -lt "$end" ] || fail "the server did not start within a minute: ${2#"$work/"}"
    sleep 0.1
  done
}

# --- The server and its administrator ---------------------------------------------------------------------------------

# Starts a server that trusts $certificate, on a free loopback port; its address is then in $url.
url='' password=''
start_server() {
  local key value
  mkfifo "$work/server.out"
  livepatch-server quickstart --data-dir "$work/data" --listen 127.0.0.1:0 --trust-certificate "$certificate" \
    >"$work/server.out" 2>"$work/server.log" &
  server=$!
  exec 3<"$work/server.out"
  while [ -z "$url" ] || [ -z "$password" ]; do
    read -r -t 120 key value <&3 || fail "the server should have printed its URL and the administrator's password"
    case "$key" in
      URL) url=$value ;;
      password) password=$value ;;
    esac
  done
  printf '\n     it says: URL %s, administrator admin, and a password\n' "$url"
  export LIVEPATCH_URL=$url
}

log_in() {
  (umask 077 && printf 'admin:%s\n' "$password" >"$work/auth")
  run livepatch-admin login --auth-file "$work/auth"
}

# make_token LABEL TIER: the token is then in $work/LABEL.token.
make_token() {
  printf '\n   $ livepatch-admin auth-token %s\n     lpa_... (not shown here)\n' "$*"
  (umask 077 && livepatch-admin --quiet auth-token "$@" >"$work/$1.token")
  [[ $(<"$work/$1.token") == lpa_* ]] || fail "the command should have printed a token and nothing else"
}

stop_server() {
  local status=0
  kill -TERM "$server"
  wait "$server" || status=$?
  server=
  [ "$status" = 0 ] || fail "the server ended with exit code $status, 0 was expected"
  [ ! -e "$work/data/postgres/cluster/postmaster.pid" ] || fail "the server's PostgreSQL should have been stopped"
  ! grep -qi 'panicked' "$work/server.log" || fail "the server panicked: $(grep -i panicked "$work/server.log")"
}
