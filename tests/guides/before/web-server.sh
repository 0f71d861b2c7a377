# shellcheck shell=sh
# Any web server on port 80.
mkdir -p /var/www/html
background 80 busybox httpd -f -p 80 -h /var/www/html
web_server=$!
