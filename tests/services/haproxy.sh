# shellcheck shell=sh
# Two servers behind one haproxy: the clients' own addresses, and one of the two
# restarted under load without a lost connection.
mkdir -p /etc/sslserver
echo '127.0.0.66:deny' >/test/rules
echo ':allow' >>/test/rules
sslrules /etc/sslserver/pop3s.cdb /etc/sslserver/pop3s.tmp </test/rules
start haproxy/pop3s-a 10995
start haproxy/pop3s-b 10996
haproxy -c -f "$examples/haproxy/haproxy.cfg" >/test/checked
setsid haproxy -db -f "$examples/haproxy/haproxy.cfg" >/test/haproxy.out 2>&1 &
eventually listens 995
login() { sslclient -RHl0 -i "$1" mail.example.com 995 sh -c 'read -r line <&6 && echo "$line" && printf "QUIT\r\n" >&7 && cat <&6 >/dev/null'; }
both() { cat /etc/pop3s-a/log/main/current /etc/pop3s-b/log/main/current; }
is 0 sh -c 'grep -c "listens nowhere" /test/haproxy.out || :'
case $(login 127.0.0.1) in '+OK'*) ;; *) exit 1 ;; esac
# Clients of many addresses, spread over both servers.
load() {
  for host in 1 2 3 4 5 6 7 8; do
    for round in 1 2 3; do
      case $(login "127.0.0.$((host + 10))") in
        '+OK'*) echo served >>/test/load ;;
        *) echo "lost: $host $round" >>/test/load ;;
      esac
    done
  done
}
: >/test/load
(load) & first=$!
(load) & second=$!
served() { [ "$(grep -c served /test/load)" -ge "$1" ]; }
eventually served 8
svc -t /etc/pop3s-a
eventually served 24
svc -t /etc/pop3s-b
wait "$first"
wait "$second"
is 48 grep -c served /test/load
is 48 grep -c . /test/load
for name in a b; do
  grep -q ': ok .*:127\.0\.0\.1[0-9]:' "/etc/pop3s-$name/log/main/current" || exit 1
done
# Rules are met by the client's address, not by the proxy's.
code=0
login 127.0.0.66 >/test/denied 2>&1 || code=$?
is 111 echo "$code"
both | grep -q ': deny .*:127\.0\.0\.66:'
# Nobody but the proxy gets in without a header.
code=0
answer 10995 x >/test/denied 2>&1 || code=$?
is 111 echo "$code"
