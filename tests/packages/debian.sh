# shellcheck shell=sh
# Sourced by the parts that need a fresh Debian: one is made by debootstrap, kept
# with the build, and lies below every machine that is thrown away. The packages
# that the parts fetch wait in its apt's cache, so what is typed there needs no
# network, and a mirror that fails is found out before anything is typed.

# fetched_by_pages: the packages that the pages of the walk have their reader fetch.
fetched_by_pages() {
  sed -n 's/^apt-get install //p' README.md doc/first-service.md | xargs -n 1 | sort -u
}

# from_mirror COMMAND...: what the mirror, and nothing of ours, can make fail.
from_mirror() {
  timeout 400 "$@" >"$work/out" 2>&1 && return
  rm -rf --one-file-system "${new:?}"
  cannot "$1 fails (is there a Debian mirror?): $(grep . "$work/out" | tail -n 1)"
}

# keep_debian FOLDER CODENAME PACKAGE...: makes it, unless it is there.
keep_debian() {
  kept=$1
  codename=$2
  shift 2
  make_folder "${kept%/*}"
  exec 8>"${kept%/*}/lock"
  flock 8
  # What an interrupted run has left.
  rm -rf --one-file-system "${kept%/*}"/new.*
  if [ ! -d "$kept" ]; then
    new=$(mktemp -d "${kept%/*}/new.XXXXXX") || barf 'cannot make a directory'
    safe chmod 755 "$new"
    shout "making a Debian $codename"
    # The mirror and the proxy that this machine's apt has.
    # shellcheck disable=SC2016 # apt's words
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' \
      "Codename: $codename" 2>/dev/null | head -n 1)
    [ -n "${http_proxy-}" ] || eval "$(apt-config shell http_proxy Acquire::http::Proxy 2>/dev/null)"
    export http_proxy="${http_proxy-}"
    from_mirror debootstrap --variant=minbase "$codename" "$new" ${mirror:+"$mirror"}
    from_mirror chroot "$new" apt-get update
    from_mirror chroot "$new" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y --no-install-recommends --download-only "$@"
    safe mv "$new" "$kept"
  fi
  exec 8>&-
}

# fresh_debian NAME: sets `machine`, where it is.
fresh_debian() {
  machine=$work/machines/$1/root
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
  # shellcheck disable=SC2046 # words
  set -- gcc libc6-dev pkg-config libssl-dev libunbound-dev libgmp-dev openssl less man-db $(fetched_by_pages)
  kept=$CARGO_TARGET_DIR/debian/$codename-$(echo "$*" | cksum | cut -d ' ' -f 1)
  keep_debian "$kept" "$codename" "$@"
  lay_over "$kept" "$machine" || cannot 'the kernel lays no file system over another here'
  safe mount -t proc proc "$machine/proc"
  safe mount --rbind /dev "$machine/dev"
  safe mount --make-rslave "$machine/dev"
}

# lay_over FROM TO: FROM as it is, at TO, where it can be written to.
layers=0
lay_over() {
  layers=$((layers + 1))
  layer=$work/machines/layer$layers
  mkdir -p "$layer/upper" "$layer/work" "$2" &&
    mount -t overlay -o "lowerdir=$1,upperdir=$layer/upper,workdir=$layer/work" overlay "$2"
}
