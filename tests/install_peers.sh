#!/bin/sh
# Installs the named Debian packages where that is possible, and says what was left out where it is not.
# Tests whose peer is absent are skipped with that reason, so this never fails.
missing=
for package in "$@"; do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' \
        || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "Not installed:$missing (needs root and apt-get); what depends on them is skipped."
    exit 0
fi
echo "Installing$missing ..."
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# Tests start the servers themselves, on ports of their own: none is to start because it was installed.
policy=/usr/sbin/policy-rc.d
[ -e "$policy" ] && policy= || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"; }
{ apt-get update --quiet && apt-get install --quiet --yes --no-install-recommends $missing; } >"$log" 2>&1 \
    || { tail -n 5 "$log"; echo "Could not install$missing; what depends on them is skipped."; }
rm -f "$log"
[ -n "$policy" ] && rm -f "$policy"
exit 0
