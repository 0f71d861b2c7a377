# shellcheck shell=sh
# certbot answers on port 80 itself.
kill "$web_server"
until_true not_listening 80
