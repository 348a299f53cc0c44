"""Renders the wrapper for other places: as a POSIX shell script, and as values of Airflow's official Helm chart."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator

from crosswind.sidecars.wrapper import (
    LOOK_S,
    QUIT_RETRY_S,
    QuitEndpoint,
    ReadyEndpoint,
    WrapSettings,
    quit_endpoints,
    ready_endpoints,
)

__all__ = ["helm_values", "shell"]

_SHELL = r"""#!/bin/sh
# Runs a command among mesh sidecars: waits until they are ready, runs it, asks them to quit, and exits with its exit
# code (128 + n for signal n). Usage: sh wrap.sh COMMAND [ARGUMENT...]
#
# Needs a POSIX shell, sleep, and one of curl, wget, nc, bash. Variables: WRAP_LOOK, for how many seconds it looks for
# sidecars that start late; WRAP_TIMEOUT, after how many seconds the command runs although sidecars are not ready;
# WRAP_ADDRESS, where the sidecars listen.
# INT and QUIT reach the command as TERM, because a shell starts a background command with both ignored.

timeout=${WRAP_TIMEOUT:-@TIMEOUT@} look=${WRAP_LOOK:-@LOOK@} host=${WRAP_ADDRESS:-@ADDRESS@} named='@NAMED@'
retry=@RETRY@

limit= # some builds of wget crash on -T
timeout 2 true 2>/dev/null && limit='timeout 2'
have() { command -v "$1" >/dev/null 2>&1; }
say() { echo "wrap: $*" >&2; }

# METHOD PORT PATH: prints the status code of the answer; 000: nothing listens; 0: cut off; slow: no answer in 2 s
status() {
  if have curl; then
    code=$(curl -s -o /dev/null -m 2 --noproxy '*' -w '%{http_code}' @CURL_HEADERS@-X "$1" "http://$host:$2$3")
    case $?:$code in 7:*) echo 000 ;; 28:*) echo slow ;; *:000) echo 0 ;; *) echo "$code" ;; esac
  elif have wget; then
    post=
    [ "$1" = GET ] || post=--post-data=
    out=$(LC_ALL=C http_proxy= $limit wget -O /dev/null @WGET_HEADERS@$post "http://$host:$2$3" 2>&1)
    case $?:$out in
    0:*) echo 200 ;;
    124:* | 143:*) echo slow ;;
    *[Rr]efused*) echo 000 ;;
    *) code_of "$out" ;;
    esac
  elif have nc; then
    answer=$(text "$1" "$3" | nc -w 2 "$host" "$2")
    case $?:$answer in [1-9]*:) echo 000 ;; *) code_of "$answer" ;; esac
  elif have bash; then
    text "$1" "$3" | bash -c 'exec 3<>"/dev/tcp/$0" || { echo "HTTP/1.0 000"; exit; }
      cat >&3; read -t 2 -r line <&3 && echo "$line"' "$host/$2" | { read -r line; code_of "$line"; }
  fi 2>/dev/null
}
text() { printf '%s %s HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n@RAW_HEADERS@\r\n' "$1" "$2"; }
code_of() { # TEXT, with "HTTP/1.1 503 Service Unavailable" or GNU wget's "ERROR 503: Service Unavailable" in it
  case $1 in
  *HTTP/1.?' '[0-9][0-9][0-9]*) rest=${1#*HTTP/1.? } ;;
  *ERROR' '[0-9][0-9][0-9]:*) rest=${1#*ERROR } ;;
  *) rest=0 ;;
  esac
  echo "${rest%"${rest#???}"}"
}

began=$(date +%s 2>/dev/null) slept=0
pause() { sleep 1; slept=$((slept + 1)); }
passed() { # seconds since the start; without date, the pauses alone
  if [ -n "$began" ]; then echo $(($(date +%s) - began)); else echo "$slept"; fi
}

# One round over the sidecars: "seen" are those that listen, "waits" those that are named or listen and are not ready
seen=' '
ready() { # NAME METHOD PORT PATH
  case $seen:$(status "$2" "$3" "$4") in
  *" $1 "*:2??) return ;;
  *:2??) seen="$seen$1 " ;;
  *:000 | *:401 | *:403 | *:404 | *:405) # nothing listens, or another program
    case "$seen $named " in *" $1 "*) waits="$waits $1" ;; esac ;;
  *) case $seen in *" $1 "*) ;; *) seen="$seen$1 " ;; esac; waits="$waits $1" ;;
  esac
}
look_once() {
  waits=
@READY@
}

# One round of requests to quit: "gone" are those that accepted or refused for good, "pending" those to ask again
gone=' ' refused=
quit() { # NAME METHOD PORT PATH [METHOD PORT PATH...]
  name=$1 code=000
  shift
  case $gone in *" $name "*) return ;; esac
  while [ $# -ge 3 ]; do
    answer=$(status "$1" "$2" "$3")
    case $answer in 000) ;; *) code=$answer ;; esac
    case $code in 2?? | 0) gone="$gone$name "; return ;; esac
    shift 3
  done
  case $code in
  000) case "$seen $named @OWN@ " in *" $name "*) pending="$pending $name" ;; esac ;;
  429 | 5?? | slow) pending="$pending $name" ;;
  *) gone="$gone$name "
    case "$seen $named @OWN@ " in *" $name "*) refused="$refused $name ($code)" ;; esac ;;
  esac
}
quit_once() {
  pending=
@QUIT@
}
quit_all() {
  retry=$(($(passed) + retry))
  while quit_once; do
    [ "$(passed)" -ge "$look" ] || { pause; continue; }
    [ -n "$pending" ] && [ "$(passed)" -lt "$retry" ] || break
    pause
  done
  [ -z "$pending$refused" ] || say "could not be asked to quit:$pending$refused; see the documentation on sidecars"
}

have curl || have wget || have nc || have bash || say "no curl, wget, nc or bash: sidecars are not asked to quit"

signal=
for number in 1 2 3 15; do trap "signal=$number" "$number"; done
while [ "$named" != none ] && look_once && [ -z "$signal" ]; do
  [ -n "$waits" ] || [ "$(passed)" -lt "$look" ] || break
  [ "$(passed)" -lt "$timeout" ] || { [ -z "$waits" ] || say "not ready:$waits; running the command anyway"; break; }
  pause
done
if [ -n "$signal" ]; then
  quit_all
  exit $((128 + signal))
fi

exec 3<&0
"$@" <&3 3<&- &
child=$!
exec 3<&-
for name in TERM HUP USR1 USR2; do trap "got=1; kill -s $name $child 2>/dev/null" "$name"; done
trap 'got=1; kill -s TERM "$child" 2>/dev/null' INT QUIT
case $signal in # it arrived while the traps were changed
'') ;;
1) kill -s HUP "$child" ;;
*) kill -s TERM "$child" ;;
esac
code=
while :; do
  got=
  wait "$child"
  result=$?
  [ "$result" = 127 ] && [ -n "$code" ] || code=$result
  [ -n "$got" ] || break
done
result=$code
quit_all
exit "$result"
"""

_HELM = """\
# For the Jobs of Airflow's official Helm chart under a service mesh whose sidecars do not exit by themselves. The
# chart's own arguments follow this command and stay as they are. The image needs crosswind, as the scheduler's has it.
migrateDatabaseJob:
  command: {command}
createUserJob:
  command: {command}
"""


def shell(settings: WrapSettings) -> str:
    """Return a POSIX shell script that does what ``wrapper.run`` does with these settings, in steps of a second."""
    quits = [*settings.quit, *quit_endpoints(settings.meshes)]
    headers = sorted({header for endpoint in quits for header in endpoint.headers})
    places = {
        "TIMEOUT": str(math.ceil(settings.wait_timeout)),
        "LOOK": str(math.ceil(settings.look)) if "auto" in settings.meshes else "0",
        "NAMED": " ".join(name for name in settings.meshes if name != "auto"),
        "RETRY": str(math.ceil(QUIT_RETRY_S)),
        "OWN": " ".join(_name(endpoint) for endpoint in settings.quit),
        # some clients try only one address of a name, and that may be ::1
        "ADDRESS": "127.0.0.1" if settings.address == "localhost" else settings.address,
        "CURL_HEADERS": "".join(f"-H '{name}: {value}' " for name, value in headers),
        "WGET_HEADERS": "".join(f"--header '{name}: {value}' " for name, value in headers),
        "RAW_HEADERS": "".join(f"{name}: {value}\\r\\n" for name, value in headers),
        "READY": "\n".join(_lines("ready", ready_endpoints(settings.meshes))) or "  :",
        "QUIT": "\n".join(_lines("quit", quits)) or "  :",
    }
    text = _SHELL
    for name, value in places.items():
        text = text.replace(f"@{name}@", value)
    return text


def _name(endpoint: QuitEndpoint | ReadyEndpoint) -> str:
    """Return the sidecar's name as one word; a request that the user gave is named by its port and path."""
    return f":{endpoint.port}{endpoint.path}" if " " in endpoint.sidecar else endpoint.sidecar


def _lines(function: str, endpoints: Iterable[QuitEndpoint | ReadyEndpoint]) -> Iterator[str]:
    """Yield one call per sidecar, with all its requests, best first."""
    by_sidecar: dict[str, list[str]] = {}
    for endpoint in endpoints:
        by_sidecar.setdefault(_name(endpoint), []).extend((endpoint.method, str(endpoint.port), endpoint.path))
    for name, words in by_sidecar.items():
        yield f"  {shlex.join([function, name, *words])}"


def helm_values(settings: WrapSettings) -> str:
    """Return values for the chart's jobs that migrate the database and create the first user."""
    words = ["crosswind", "wrap", "--wait-timeout", f"{settings.wait_timeout:g}"]
    words += [word for name in settings.meshes for word in ("--mesh", name)]
    if settings.look != LOOK_S:
        words += ["--look", f"{settings.look:g}"]
    for endpoint in settings.quit:
        words += ["--quit", f"{endpoint.method} :{endpoint.port}{endpoint.path}"]
    quoted = ", ".join(f'"{word}"' for word in (*words, "--", "/entrypoint"))
    return _HELM.format(command=f"[{quoted}]")
