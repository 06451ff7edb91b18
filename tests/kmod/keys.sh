#!/usr/bin/env bash
# Makes a key and a self-signed certificate for signing modules.
#
#   keys.sh OUTDIR [BITS [COMMON-NAME]]   makes OUTDIR/key.pem and OUTDIR/cert.pem and prints both paths
#
# BITS is 4096, as in Canonical's certificates, unless given (2048 is faster). Existing files are kept.
set -euo pipefail

fail() { printf 'keys.sh: %s\n' "$*" >&2; exit 1; }

[ $# -ge 1 ] && [ $# -le 3 ] || fail "usage: keys.sh OUTDIR [BITS [COMMON-NAME]]"
outdir=$1 bits=${2:-4096} name=${3:-Live Patch Test Signing}
case "$bits" in 2048|3072|4096) ;; *) fail "BITS is 2048, 3072 or 4096, not '$bits'" ;; esac
command -v openssl >/dev/null || fail "openssl is not installed"

mkdir -p "$outdir"
outdir=$(cd "$outdir" && pwd)
if [ ! -s "$outdir/key.pem" ] || [ ! -s "$outdir/cert.pem" ]; then
  work=$(mktemp -d "$outdir/.keys.XXXXXXXX")
  trap 'rm -rf "$work"' EXIT
  umask 077
  cat >"$work/x509.cnf" <<EOF
[req]
distinguished_name = dn
prompt = no
x509_extensions = ext
[dn]
CN = $name
[ext]
basicConstraints = critical,CA:FALSE
keyUsage = digitalSignature
subjectKeyIdentifier = hash
EOF
  openssl req -x509 -newkey "rsa:$bits" -nodes -days 36500 -sha512 -config "$work/x509.cnf" \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2>"$work/log" || { cat "$work/log" >&2; fail "openssl did not make a key"; }
  chmod 644 "$work/cert.pem"
  mv "$work/key.pem" "$outdir/key.pem"
  mv "$work/cert.pem" "$outdir/cert.pem"
fi
printf '%s\n%s\n' "$outdir/key.pem" "$outdir/cert.pem"
