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
trap '[ -n "$policy" ] && rm -f "$policy"; rm -f "$log"' EXIT
trap 'exit 0' HUP INT TERM
install() { apt-get install --quiet --yes --no-install-recommends "$@" >>"$log" 2>&1; }
apt-get update --quiet >"$log" 2>&1
if ! install $missing; then
    # One that this release of Debian has not is to cost no other.
    for package in $missing; do
        install "$package" || { tail -n 3 "$log"; echo "Could not install $package; what depends on it is skipped."; }
    done
fi
exit 0
