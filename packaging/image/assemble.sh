#!/bin/sh
# Lays out the root of the image: programs, the libraries that they load, certificate authorities, an account. Run in the build
# stage, whose distribution the libraries are from.
#
#   assemble.sh BINARIES ROOT
set -eu

binaries=$1 root=$2
mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/tmp" "$root/var/tmp" "$root/var/lib/livepatch"
for program in livepatch-server livepatch-admin livepatch-client; do
  install -m 755 "$binaries/$program" "$root/usr/bin/$program"
done

# What they are linked with, under the paths where the loader looks. `ldd` names the loader itself as well.
for library in $(ldd "$root"/usr/bin/* | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | sort -u); do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done
if ldd "$root"/usr/bin/* | grep 'not found'; then
  echo "assemble: a library is missing in this stage, see above" >&2
  exit 1
fi

cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
[ ! -e /etc/ssl/openssl.cnf ] || cp -L /etc/ssl/openssl.cnf "$root/etc/ssl/"
mkdir -p "$root/usr/lib/ssl"
ln -s /etc/ssl/openssl.cnf "$root/usr/lib/ssl/openssl.cnf"
ln -s /etc/ssl/certs "$root/usr/lib/ssl/certs"
ln -s /etc/ssl/certs/ca-certificates.crt "$root/usr/lib/ssl/cert.pem"
printf 'root:x:0:0:root:/:/usr/sbin/nologin\nlivepatch:x:65532:65532:livepatch:/var/lib/livepatch:/usr/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nlivepatch:x:65532:\n' >"$root/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
install -m 644 /image/livepatch.yaml "$root/etc/livepatch.yaml"
chmod 1777 "$root/tmp" "$root/var/tmp"
chown 65532:65532 "$root/var/lib/livepatch"
chmod 750 "$root/var/lib/livepatch"

# The same input gives the same image.
find "$root" -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH:-0}" {} +
