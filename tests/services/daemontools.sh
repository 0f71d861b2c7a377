# shellcheck shell=sh
# The commands of daemontools.
supervise_all() { setsid svscan /service </dev/null >/test/scan.out 2>&1 & }
is_up() { svstat "$1" | grep -q ': up'; }
process() { svstat "$1" | sed -n 's/.*(pid \([0-9]*\)).*/\1/p'; }
hangup() { svc -h "$1"; }
restart() { svc -t "$1"; }
is_ready() { is_up "$1"; }
finish() { svc -dx "$1" "$1/log"; }
is_over() { ! svok "$1" && ! svok "$1/log"; }
stamp='^@4[0-9a-f]\{23\} '
