#!/bin/sh
# Brings PgBouncer for the tests: `pgbouncer.sh FOLDER`. One that is installed is used as it is; on Debian and Ubuntu the
# packages are unpacked into FOLDER, which needs no root and changes nothing else. There is no wheel of it. Where it
# cannot be had FOLDER/why says so, and the tests that need it are skipped with that reason.
set -eu

folder=$1
rm -rf "$folder"
mkdir -p "$folder/packages"
command -v pgbouncer >/dev/null 2>&1 && exit
[ -x /usr/sbin/pgbouncer ] && exit

give_up() {
    printf '%s\n' "$1" >"$folder/why"
    printf 'duramen: %s The tests through a pooler will be skipped.\n' "$1" >&2
    exit 0
}

command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1 ||
    give_up 'pgbouncer is not installed, and there is no apt-get to fetch it with.'
[ -n "$(apt-cache madison pgbouncer 2>/dev/null)" ] || [ "$(id -u)" != 0 ] || apt-get update >/dev/null 2>&1 || true

cd "$folder/packages"
# The two libraries that a machine without it may lack; their names end in the distribution's version of them.
libraries=$(apt-cache depends pgbouncer 2>/dev/null | sed -n 's/.*Depends: \(libevent-.*\|libc-ares.*\)/\1/p')
# shellcheck disable=SC2086 # several names
apt-get download pgbouncer $libraries >download.log 2>&1 ||
    give_up "pgbouncer is not installed, and apt-get download failed: $(tail -n 1 download.log)"
for package in *.deb; do
    dpkg -x "$package" unpacked
done
cd ..
cp packages/unpacked/usr/sbin/pgbouncer .
find packages/unpacked/usr/lib -name '*.so.*' -exec cp -P {} . ';'
rm -rf packages
