# shellcheck shell=sh
# The service, and clients of some kinds; all of them gone when the page begins.
before pop3s
for version in -tls1_2 -tls1_3 -tls1_3; do
  echo QUIT | openssl s_client -quiet -crlf "$version" -connect 127.0.0.1:995
done
echo QUIT | openssl s_client -quiet -verify_return_error -connect 127.0.0.1:995 || :
printf 'QUIT\r\n' | nc -N 127.0.0.1 995 || :
until_true all_ended
