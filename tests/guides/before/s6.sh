# shellcheck shell=sh
mkdir -p /run/service
setsid s6-svscan /run/service </dev/null >>/test/before.out 2>&1 &
until_true s6-svscanctl -a /run/service
