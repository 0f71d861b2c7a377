# shellcheck shell=sh
# The machine that the page speaks of: its name, and its supervisor at work.
printf '127.0.0.1 mail.example.com\n' >>/etc/hosts
before svscan
