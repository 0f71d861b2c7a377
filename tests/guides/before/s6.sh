# shellcheck shell=sh
mkdir -p /run/service
setsid s6-svscan /run/service </dev/null >>/test/before.out 2>&1 &
