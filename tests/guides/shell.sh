# shellcheck shell=sh
# Sourced by a reader's session: what happens beside the blocks of the page.
cd /root
current=before
trap 'echo "$?" >"/test/$current.code"' EXIT
web_server=
svscan=

# before NAME: what a reader finds, or what others do, before a block.
before() {
  # shellcheck source=/dev/null
  . "/test/before/$1.sh" >>/test/before.out 2>&1
}

# begin NUMBER, end NUMBER CODE: around what the reader types. A command that
# fails ends the shell in between, and its code is the block's.
begin() { current=$1; }
end() {
  echo "$2" >"/test/$1.code"
  current=before
}

# written NUMBER PATH: the reader's editor.
written() {
  mkdir -p "$(dirname "$2")"
  # Into a file that is there: its mode stays. A new one cannot be run.
  cat "/test/$1" >"$2"
  end "$1" 0
}

# listens PORT: whether somebody does, on any address.
listens() { grep -qi ":$(printf %04X "$1") 0*:0000 0A" /proc/net/tcp /proc/net/tcp6; }

not_listening() { ! listens "$1"; }

# until_true COMMAND...: waits for it to come true, half a minute at most.
until_true() {
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { echo "not within half a minute: $*"; return 1; }
    sleep 0.1
  done
}

# background PORT COMMAND...: a server, which others do not end.
background() {
  port=$1
  shift
  setsid "$@" </dev/null >>/test/before.out 2>&1 &
  until_true listens "$port"
}

# retried NUMBER: a block, again and again until it ends with 0.
retried() { until_true typed "$1"; }
typed() { sh -e "/test/$1" >"/test/$1.out" 2>&1 </dev/null; }

# served NUMBER PORT: a run script, until a client has been greeted.
served() {
  current=$1
  mkdir -p "/test/run-$1"
  cp "/test/$1" "/test/run-$1/run"
  chmod 755 "/test/run-$1/run"
  cd "/test/run-$1"
  until_true not_listening "$2"
  setsid ./run </dev/null >"/test/$1.out" 2>&1 &
  server=$!
  until_true listens "$2"
  greeting "$2" >>"/test/$1.out"
  kill "$server"
  until_true not_listening "$2"
  cd /root
  end "$1" 0
}

# greeting PORT: a client that wants its first line and the answer to QUIT from
# behind verified TLS.
greeting() {
  upgrade=
  case $1 in
    25 | 587) upgrade='-y smtp' wanted='220 221' ;;
    465) wanted='220 221' ;;
    *) wanted='+OK +OK' ;;
  esac
  # shellcheck disable=SC2086 # words
  said=$(sslclient -RHl0 $upgrade mail.example.com "$1" sh -c '
    read -r line <&6
    echo "$line"
    printf "QUIT\r\n" >&7
    exec cat <&6' 2>&1)
  echo "$said"
  codes=$(echo "$said" | sed 's/[ \r].*//; s/-$//' | tr '\n' ' ')
  [ "$codes" = "$wanted " ]
}

all_ended() { [ "$(grep -c 'sslserver: end' /etc/pop3s/log/main/current)" = 5 ]; }
