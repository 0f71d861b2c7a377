# shellcheck shell=sh
# The commands of runit.
supervise_all() { setsid runsvdir /service </dev/null >/test/scan.out 2>&1 & }
is_up() { sv status "$1" | grep -q '^run: '; }
process() { sed -n 1p "$1/supervise/pid"; }
hangup() { sv hup "$1"; }
restart() { sv term "$1"; }
is_ready() { is_up "$1"; }
finish() { sv exit "$1"; }
# The log's own runsv ends with its service's.
is_over() { ! sv status "$1" | grep -q '^\(run\|down\|finish\): '; }
stamp='^20[0-9-]*_[0-9:.]* '
