# shellcheck shell=sh
# What Debian's runit-run starts at boot, in place of daemontools' scanner.
kill "$svscan"
setsid runsvdir /etc/service </dev/null >>/test/before.out 2>&1 &
