# shellcheck shell=sh
# What Debian's daemontools-run starts at boot.
rm -rf /etc/service
mkdir -p /etc/service
setsid svscan /etc/service </dev/null >>/test/before.out 2>&1 &
svscan=$!
