#!/usr/bin/env bash
# Fetches Redis 8 for the tests, from Debian 13's packages, into .cache/redis8, with the libraries it
# was built for: it then runs on older Debians too. Touches nothing of the system. Does nothing where
# it is there; says why and fails where it cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$PWD/.cache/redis8
[ -x "$target/redis-server" ] && exit 0
for tool in apt-get apt-cache dpkg-deb; do
  command -v "$tool" >/dev/null || { echo "redis8: no $tool on this machine" >&2; exit 1; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{state/lists/partial,cache/archives/partial,root,debs}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] http://deb.debian.org/debian trixie main" >"$work/sources.list"
options=(-qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
  -o Dir::State="$work/state" -o Dir::State::status=/dev/null -o Dir::Cache="$work/cache"
  -o APT::Sandbox::User=root)
apt-get "${options[@]}" update
packages=$(apt-cache "${options[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts \
  --no-breaks --no-replaces --no-enhances redis-server | grep -E '^(redis|lib)[a-z0-9.+-]*$' | sort -u)
# shellcheck disable=SC2086 - one word a package
(cd "$work/debs" && apt-get "${options[@]}" download $packages)
for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$work/root"; done

loader=$(find "$work/root" -name 'ld-linux-*' | head -n 1)
program=$work/root/usr/bin/redis-check-rdb  # the server's other name
[ -n "$loader" ] && [ -f "$program" ] || { echo "redis8: not in the packages" >&2; exit 1; }
libraries=$(dirname "$(find "$work/root" -name 'libc.so.6' | head -n 1)")
mkdir -p "$(dirname "$target")"
rm -rf "$target"
mv "$work/root" "$target"
cat >"$target/new" <<WRAPPER
#!/bin/sh
exec "${loader/$work\/root/$target}" --argv0 redis-server \\
  --library-path "${libraries/$work\/root/$target}" "${program/$work\/root/$target}" "\$@"
WRAPPER
chmod +x "$target/new"
"$target/new" --version
mv "$target/new" "$target/redis-server"  # tests take what is there: only what works
