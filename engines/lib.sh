# Shared by the engines' start and stop scripts: . "$(dirname "$0")/../lib.sh"
set -euo pipefail

fail() { echo "$*" >&2; exit 1; }

# need PACKAGE COMMAND: installs a Debian package unless its command is there (a name, or a path outside of PATH).
# The package's own service is not started. One installation at a time, whoever asks.
need() {
  command -v "$2" >/dev/null 2>&1 && return
  [ "$(id -u)" = 0 ] || fail "$2 is missing: install the package $1"
  (
    flock 9
    command -v "$2" >/dev/null 2>&1 && exit
    echo "installing $1"
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
      trap 'rm -f "$policy"' EXIT
      printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    quietly=(apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
    log=$(mktemp)
    if ! { "${quietly[@]}" install --no-install-recommends "$1" ||
           { "${quietly[@]}" update && "${quietly[@]}" install --no-install-recommends "$1"; }; } >"$log" 2>&1 9>&-; then
      tail -n 20 "$log" >&2
      fail "the package $1 could not be installed"
    fi
    rm -f "$log"
  ) 9>"${TMPDIR:-/tmp}/unisono-engines-apt.lock"
  command -v "$2" >/dev/null 2>&1 || fail "the package $1 was installed but $2 is not there"
}

# certificates DIR: makes ca.crt and ca.key, and server.crt and server.key for 127.0.0.1 and localhost, signed by them.
certificates() {
  need openssl openssl
  mkdir -p "$1"
  (
    cd "$1"
    key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    openssl req -x509 "${key[@]}" -days 365 -keyout ca.key -out ca.crt -subj "/CN=Unisono engines CA" \
      -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
    openssl req "${key[@]}" -keyout server.key -out server.csr -subj "/CN=localhost"
    openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -out server.crt \
      -extfile <(printf '%s\n' basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature \
        extendedKeyUsage=serverAuth,clientAuth subjectAltName=IP:127.0.0.1,DNS:localhost)
    rm -f server.csr
    chmod 600 ca.key server.key
    chmod 644 ca.crt server.crt
  ) 2>"$1/openssl.log" || { cat "$1/openssl.log" >&2; fail "certificates could not be made in $1"; }
  rm -f "$1/openssl.log"
}

# wait_until SECONDS COMMAND…: repeats a command until it succeeds; fails, with its last output, when time is up.
wait_until() {
  local deadline=$(($(date +%s) + $1)) said
  shift
  until said=$("$@" 2>&1); do
    [ "$(date +%s)" -lt "$deadline" ] || { echo "not ready in time: $*: $said" >&2; return 1; }
    sleep 0.2
  done
}

# launch PIDFILE LOG COMMAND…: starts a program that outlives the script, its PID in a file; how, for engines/restart,
# in another.
launch() {
  local pidfile=$1 log=$2
  printf '%q ' launch "$@" >"$pidfile.launch"
  shift 2
  setsid "$@" >>"$log" 2>&1 </dev/null &
  echo $! >"$pidfile"
}

# alive PID: whether the process runs; one that has ended but was not yet collected does not.
alive() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  [ "${stat%% *}" != Z ]
}

# began PID: when the process began, in seconds since 1970.
began() {
  local fields
  read -ra fields <<<"$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null)"
  echo $(($(awk '/^btime/ { print $2 }' /proc/stat) + ${fields[19]:-0} / $(getconf CLK_TCK)))
}

# end PIDFILE: ends the process that a PID file names and waits for it; asks first, insists after 20 seconds.
# A process that began after the file was written is another one, with the number used again: it is left alone.
end() {
  [ -s "$1" ] || return 0
  local pid tries=0
  read -r pid <"$1" || true # The last line may lack its newline.
  if alive "$pid" && [ "$(began "$pid")" -le $(($(stat -c %Y "$1") + 2)) ]; then
    kill "$pid" 2>/dev/null || true
    while alive "$pid"; do
      tries=$((tries + 1))
      [ $tries -ne 200 ] || kill -9 "$pid" 2>/dev/null || true
      [ $tries -lt 300 ] || fail "process $pid of $1 does not end"
      sleep 0.1
    done
  fi
  rm -f "$1"
}
