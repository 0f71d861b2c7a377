# shellcheck shell=sh
# The commands of s6.
supervise_all() { setsid s6-svscan /service </dev/null >/test/scan.out 2>&1 & }
is_up() { [ "$(s6-svstat -o up "$1" 2>/dev/null)" = true ]; }
process() { s6-svstat -o pid "$1"; }
hangup() { s6-svc -h "$1"; }
restart() { s6-svc -t "$1"; }
# By the readiness that the service tells of, not by its process.
is_ready() { s6-svwait -U -t 30000 "$1"; }
finish() { s6-svc -x -d "$1"; s6-svc -x -d "$1/log"; }
is_over() { ! s6-svok "$1" && ! s6-svok "$1/log"; }
stamp='^@4[0-9a-f]\{23\} '
