# shellcheck shell=bash
# The reader's machine: machine.sh PLACE PROGRAMS CHECKOUT, as the first process
# of namespaces of its own. Its disk is this machine's under a layer that ends
# with it, so every path of a guide is the real one.
# A reader's shell has no descriptors of whoever runs the tests: sslserver counts
# what it inherits. Only bash closes those of two digits; 255 is its own script.
for descriptor in /proc/self/fd/*; do
  descriptor=${descriptor##*/}
  case $descriptor in 0 | 1 | 2 | 255) continue ;; esac
  eval "exec $descriptor>&-"
done
# Its owner has an ordinary umask.
umask 022
place=$1
programs=$2
checkout=$3
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount --make-rprivate /
mkdir -p "$place/disk"
mount -t tmpfs -o mode=755 tmpfs "$place/disk"
cd "$place/disk"
mkdir layer work root
mount -t overlay -o lowerdir=/,upperdir=layer,workdir=work overlay root
cd root
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount --rbind /dev dev
# The test's own files, and the programs as package/install puts them.
mkdir -p test
mount --bind "$place" test
for program in "$programs"/*; do
  name=${program##*/}
  case $name in *.*) continue ;; esac
  [ -f "$program" ] && [ -x "$program" ] || continue
  rm -f "usr/local/bin/$name"
  : >"usr/local/bin/$name"
  mount --bind "$program" "usr/local/bin/$name"
done
cp "$checkout"/src/sh/* usr/local/bin/
# A scanner that is none of Debian's packages: package/rts puts it beside what
# was built.
scanner=${place%/tmp/*}/sslyze/bin/sslyze
[ ! -x "$scanner" ] || ln -sf "$scanner" usr/local/bin/sslyze
for page in "$checkout"/doc/*.[1578]; do
  mkdir -p "usr/local/share/man/man${page##*.}"
  cp "$page" "usr/local/share/man/man${page##*.}/"
done
mkdir -p usr/src/ucspi-tls
mount --bind -o ro "$checkout" usr/src/ucspi-tls
cp "$checkout/tests/guides/shell.sh" test/
cp -r "$checkout/tests/guides/before" test/
ip link set lo up
hostname mail.example.com
mkdir -p run/old
pivot_root . run/old
umount -l /run/old
exec env -i PATH="$PATH" HOME=/root TERM=dumb LANG=C.UTF-8 /bin/sh -e /test/session
