#!/usr/bin/env bash
# The whole way on a real kernel, told step by step: live patches for the distribution's kernel are compiled and signed, and
# a server takes them in; that kernel is booted in a virtual machine, where the client registers, is offered a patch,
# verifies it and inserts it, which /proc/cmdline shows. Then a newer patch replaces it, is blocked, and is taken back;
# a machine that comes later does not get it; and a patch that the kernel refuses is reported as such.
#
#   tests/kernel/run.sh     (or `make test-kernel`, which builds first)
#
# Starts a server of its own and virtual machines without hardware acceleration, reaches nothing but loopback, and leaves
# nothing behind. The kernel that runs on this machine is not touched. Every step is checked: the first thing that is not
# as told ends the run with an error. LIVEPATCH_BIN_DIR says where the commands are; target/debug if it is not set.
# Needs what `tests/setup.sh kernel` installs.
set -euo pipefail
name=test-kernel
. "$(dirname "${BASH_SOURCE[0]}")/../narrated.sh"

# --- The virtual machine ----------------------------------------------------------------------------------------------

mapfile -t image < <("$root/tests/kernel/image.sh")
[ ${#image[@]} -eq 3 ] || fail "there is no kernel to boot, see above"
release=${image[0]} vmlinuz=${image[1]} network=${image[2]}

# Copies a program into the tree of the virtual machine, with the libraries it loads, each at its own path.
install_program() {
  local program=$1 target=$2 library
  install -D -m 755 "$program" "$work/tree$target"
  for library in $(ldd "$program" 2>/dev/null | grep -o '/[^ ]*' || true); do
    [ -e "$work/tree$library" ] || install -D -m 755 "$library" "$work/tree$library"
  done
}

# Puts together what the virtual machine has in its memory instead of a disk.
make_tree() {
  mkdir -p "$work/tree"/{bin,dev,etc/livepatch,lib,proc,root,sys,tmp,var/lib}
  install -m 755 "$root/tests/kernel/init" "$work/tree/init"
  install_program "$(command -v busybox)" /bin/busybox
  install_program "$(PATH=$PATH:/usr/sbin:/sbin command -v insmod)" /usr/sbin/insmod
  install_program "$(PATH=$PATH:/usr/sbin:/sbin command -v rmmod)" /usr/sbin/rmmod
  install_program "$bin/livepatch-client" /usr/bin/livepatch-client
  # Debug information would not fit into the machine's memory.
  strip "$work/tree/usr/bin/livepatch-client"
  install -m 644 "$network" "$work/tree/lib/${network##*/}"
  install -m 644 "$certificate" "$work/tree/etc/livepatch/signing.pem"
  install -m 600 "$work"/*.token "$work/tree/etc/livepatch/"
  (cd "$work/tree" && find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet) | gzip -1 >"$work/initrd.gz"
}

declare -A id=([one]=1f0c6e1ba97d4d6f8a1d0c9be4f70001 [two]=2f0c6e1ba97d4d6f8a1d0c9be4f70002)

# boot MACHINE: starts the virtual machine and waits until it takes commands.
machine='' vm=
boot() {
  machine=$1
  printf '\n   $ qemu-system-x86_64 -kernel %s ...\n' "${vmlinuz##*/}"
  # Without acceleration it is the same everywhere: not every machine that runs tests may use its processor for that.
  # Two serial lines: the kernel's console goes to a file, the commands go through a pipe.
  # Errors of QEMU itself must be seen; it has nothing to say when all is well.
  coproc VM {
    exec qemu-system-x86_64 -accel tcg -m 512 -display none -no-reboot -nodefaults \
      -kernel "$vmlinuz" -initrd "$work/initrd.gz" \
      -append "console=ttyS0 panic=-1 machine=${id[$machine]}" \
      -serial "file:$work/console-$machine.log" -serial stdio -nic user,model=e1000 2>"$work/qemu-$machine.log"
  }
  vm=$VM_PID
  exec 4<&"${VM[0]}" 5>&"${VM[1]}"
  hear 180
  [ "$heard" = ready ] || fail "machine $machine should have said that it is ready, not: $heard"
}

# The next line that the virtual machine says, within so many seconds; it is then in $heard.
hear() {
  IFS= read -r -t "$1" heard <&4 || fail "machine $machine went silent"
  heard=${heard%$'\r'}
}

# Runs a command in the virtual machine, shows it and what it says, which is then in $said. Its exit code has to be $1.
guest_ends() {
  local expected=$1 line
  shift
  printf '\n   machine %s # %s\n' "$machine" "$*"
  printf '%s\n' "$*" >&5
  said=''
  while hear 180; do
    line=$heard
    # What the client prints may end without a newline only if it was cut off.
    [[ $line =~ ^ended\ [0-9]+$ ]] && break
    said+=$line$'\n'
    printf '     %s\n' "$line"
  done
  [ "$line" = "ended $expected" ] || fail "that command ended with exit code ${line#ended }, $expected was expected"
}
guest() { guest_ends 0 "$@"; }

shut_down() {
  printf 'poweroff -f\n' >&5
  exec 5>&-
  local status=0
  wait "$vm" || status=$?
  vm=
  exec 4<&-
  [ "$status" = 0 ] || fail "QEMU ended with exit code $status: $(cat "$work/qemu-$machine.log")"
}

on_finish() {
  if [ -n "$vm" ]; then
    kill -TERM "$vm" 2>/dev/null || true
    wait "$vm" 2>/dev/null || true
  fi
  [ "$1" != 0 ] || return 0
  for log in "$work"/qemu-*.log "$work"/console-*.log; do
    [ ! -s "$log" ] || { echo "what ${log##*/} holds:" >&2; tail -n 40 "$log" >&2; }
  done
}

# What the administrator sees of a machine.
server_sees() {
  run livepatch-admin --output json machine show "${id[$machine]}"
  [ "$(field state)" = "$1" ] || fail "machine $machine should be in state $1, not $(field state)"
  [ "$(field "$3")" = "$2" ] || fail "machine $machine should have $2 as its $3, not $(field "$3")"
}
# The value of a field of the JSON in $said that is a text.
field() { sed -nE "s/^ *\"$1\": \"([^\"]*)\",?$/\1/p" <<<"$said" | head -n 1; }

# The kernel of the virtual machine runs patch $1, and only that one.
runs_patch() {
  guest "cat /proc/cmdline"
  [ "$said" = "patched by $1"$'\n' ] || fail "/proc/cmdline should say that it was patched by $1"
  guest "grep . /sys/kernel/livepatch/*/enabled /sys/kernel/livepatch/*/transition"
  [ "$said" = "/sys/kernel/livepatch/$(module "$1")/enabled:1
/sys/kernel/livepatch/$(module "$1")/transition:0
" ] || fail "the kernel should show $(module "$1"), enabled and settled, and no other"
}
module() { printf 'lkp_Ubuntu_%s_%s' "${kernel//[^A-Za-z0-9]/_}" "${1%%.*}"; }

# --- The run ----------------------------------------------------------------------------------------------------------

step "Two live patches for the kernel $release are compiled, signed and packed: 106.1 and 107.1."
mapfile -t input < <("$root/tests/quickstart-input.sh" "$work/input")
[ ${#input[@]} -eq 5 ] || fail "the bundles could not be made, see above"
certificate=${input[0]} first=${input[1]} second=${input[2]} kernel=${input[3]} arch=${input[4]}
run livepatch-server bundle inspect --cert "$certificate" "$first" "$second"
says_not refused

step "A third, 108.1, is signed as well and fits the kernel by its name and vermagic, but it is to replace a function that
   does not exist. No server can see that; the kernel will."
"$root/tests/kmod/build.sh" "$work" "$(module 108.1)" "patched by 108.1" no_such_function_here >/dev/null
run livepatch-server bundle pack --ko "$work/$(module 108.1).ko" --kernel "$kernel" --version 108.1 --arch "$arch" \
  --key "$work/input/keys/key.pem" --cert "$certificate" -o "$work/input/bundles"
third=$work/input/bundles/livepatch-$kernel-108.1-$arch.tar.bz2

step "A server is started, 106.1 and 107.1 are uploaded; 106.1 may reach beta, 107.1 stays in edge."
start_server
log_in
run livepatch-admin --quiet patch upload "$first" "$second"
says "2 stored, 0 already there, 0 quarantined, 0 not sent"
run livepatch-admin patch promote 106.1 beta --reason "fine in edge"
make_token laboratory edge
make_token office beta
make_tree

step "Machine one boots: that kernel, unpatched."
boot one
guest "uname -r"
[ "$said" = "$release"$'\n' ] || fail "kernel $release should have been booted"
guest "cat /proc/cmdline"
says "machine=${id[one]}"
says_not "patched by"
guest "ls /sys/kernel/livepatch"
[ -z "$said" ] || fail "no live patch should be in this kernel"

step "It is enabled with a token for beta, is offered 106.1 (not 107.1, and is told why), verifies it and inserts it."
client="livepatch-client enable --apply --server ${url/127.0.0.1/10.0.2.2} --cert /etc/livepatch/signing.pem -"
guest "$client < /etc/livepatch/office.token"
says "patch 106.1 is applied"
says "107.1 is not offered: it has reached tier edge, not yet beta"
runs_patch 106.1
server_sees applied 106.1 applied

step "107.1 is promoted to beta. At its next check machine one gets it, and the kernel replaces the old one as a whole."
run livepatch-admin patch promote 107.1 beta --reason "fine in edge"
guest "livepatch-client check --apply"
says "patch 107.1 is applied"
runs_patch 107.1
server_sees applied 107.1 applied
guest "livepatch-client check --apply"
says "nothing new: patch 107.1 is applied"

step "107.1 turns out to be bad: it is blocked. Machine one, which runs it, goes back to 106.1."
run livepatch-admin patch block 107.1 --reason "hangs on some machines"
guest "livepatch-client check --apply"
says "patch 106.1 is applied"
runs_patch 106.1
server_sees applied 106.1 applied
shut_down

step "Machine two boots and is enabled after the block: it never sees 107.1, and is told why."
boot two
guest "$client < /etc/livepatch/laboratory.token"
says "patch 106.1 is applied"
says "107.1 is not offered: it is blocked"
runs_patch 106.1
server_sees applied 106.1 applied

step "108.1 is uploaded and enters edge, machine two's tier. Its kernel refuses it, and the server learns that at once."
run livepatch-admin --quiet patch upload "$third"
says "1 stored, 0 already there, 0 quarantined, 0 not sent"
guest_ends 1 "livepatch-client check --apply"
says "insmod"
guest "dmesg | grep livepatch: | tail -n 1"
says "no_such_function_here"
runs_patch 106.1
server_sees apply-failed 108.1 offered
run livepatch-admin machine list --state apply-failed
says "${id[two]}"
says_not "${id[one]}"
run livepatch-admin report patch-health edge 108.1

step "It is blocked; machine two recovers at its next check, with 106.1."
run livepatch-admin patch block 108.1 --reason "the kernel refuses it"
guest "livepatch-client check --apply"
says "patch 106.1 is applied"
runs_patch 106.1
server_sees applied 106.1 applied
guest "livepatch-client disable"
shut_down

step "The server is told to stop."
stop_server

printf '\ntest-kernel: all %s steps went as told, on kernel %s.\n' "$steps" "$release"
