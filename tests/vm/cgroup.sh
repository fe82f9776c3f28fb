#!/usr/bin/env bash
# Runs handlers in a virtual machine whose cgroups are all of version 2, and looks whether the kernel bounds their memory as promised.
# For machines where no cgroup with the memory controller can be handed over to a test, as in most containers.
#
#   usage: cgroup.sh [ACCELERATOR]        (default tcg, which works everywhere; kvm where it is allowed)
#
# Needs root, cargo, and the packages qemu-system-x86, debootstrap and cpio, on a Debian for amd64. Takes some minutes. Exits with 0
# if all promises hold.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly accelerator=${1:-tcg}
# Where every instruction is translated, three or four are usual.
readonly machine_minutes_max=20
for needed in qemu-system-x86_64 debootstrap cpio; do
  command -v "$needed" >/dev/null || { echo "$needed is missing: install qemu-system-x86, debootstrap and cpio" >&2; exit 1; }
done

cargo build -p trommel
program=${CARGO_TARGET_DIR:-target}/debug/trommel
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The release that this binary was linked on, so that the C library fits.
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-trixie}")
echo "making a root file system with a kernel: $suite"
debootstrap --variant=minbase --include=python3,linux-image-cloud-amd64 "$suite" "$work/root" >"$work/log" 2>&1 ||
  { tail -n 20 "$work/log" >&2; exit 1; }
kernel=$(echo "$work"/root/boot/vmlinuz-*)
install -m 755 "$program" "$work/root/usr/bin/trommel"
install -m 644 pipeline/src/adapters/runtime_api/tests/runtime.py "$work/root/runtime.py"
install -m 755 tests/vm/guest.sh "$work/root/init"
# All of it is in memory: what no program needs stays out.
(cd "$work/root" && find . -xdev \( -path ./boot -o -path ./usr/lib/modules -o -path ./usr/share/doc -o -path ./usr/share/locale \
  -o -path ./usr/share/man -o -path ./var/cache -o -path ./var/lib/apt \) -prune -o -print0 |
  cpio --quiet --null --create --format=newc) >"$work/initrd"

echo "starting the machine"
timeout "${machine_minutes_max}m" qemu-system-x86_64 -accel "$accelerator" -cpu max -m 3G -smp 2 \
  -display none -monitor none -serial stdio -net none -no-reboot -kernel "$kernel" -initrd "$work/initrd" \
  -append "console=ttyS0 quiet loglevel=1 panic=-1 rdinit=/init" </dev/null |
  tee "$work/console" | grep --text --line-buffered -E '^(#|ok:|not ok:|figure:|finished)' | tee "$work/said" || true
if ! grep -q '^finished' "$work/said"; then
  tail -n 40 "$work/console" >&2
  echo "the machine did not come to its end" >&2
  exit 1
fi
if grep '^not ok:' "$work/said" >&2; then exit 1; fi
echo "all promises hold"
