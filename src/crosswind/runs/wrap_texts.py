"""The wrapper in other words: as a shell script, and as values of Airflow's official Helm chart."""

from __future__ import annotations

from collections.abc import Iterable

from crosswind.runs.wrapping import Door, WrapSettings, doors_of

__all__ = ["helm_values", "shell"]

_SHELL = r"""#!/bin/sh
# Runs a command among mesh sidecars: waits until they are ready, runs it, tells them to end, and ends with its exit
# code (128 + n for signal n). Usage: sh wrap.sh COMMAND [ARGUMENT...]
#
# Needs a POSIX shell, sleep, and one of curl, wget, nc, bash. WRAP_TIMEOUT: seconds that the sidecars may take to be
# ready; then the command runs all the same. WRAP_ADDRESS: where they listen.
# INT and QUIT reach the command as TERM, because a shell starts what it waits for with both ignored.

timeout=${WRAP_TIMEOUT:-@TIMEOUT@} look=@LOOK@ host=${WRAP_ADDRESS:-@ADDRESS@}

limit= # some builds of wget crash on -T
timeout 2 true 2>/dev/null && limit='timeout 2'
have() { command -v "$1" >/dev/null 2>&1; }

# METHOD PORT PATH: succeeds if the answer is 2xx
request() {
  if have curl; then
    curl -sf -o /dev/null -m 2 --noproxy '*' @CURL_HEADERS@-X "$1" "http://$host:$2$3"
  elif have wget; then
    case $1 in
    GET) http_proxy= $limit wget -q -O /dev/null "http://$host:$2$3" ;;
    *) http_proxy= $limit wget -q -O /dev/null @WGET_HEADERS@--post-data= "http://$host:$2$3" ;;
    esac
  elif have nc; then
    text "$1" "$3" | nc -w 2 "$host" "$2" | good
  elif have bash; then
    text "$1" "$3" | bash -c 'exec 3<>"/dev/tcp/$0" && cat >&3 && read -t 2 -r one <&3 && echo "$one"' "$host/$2" | good
  else
    return 127
  fi 2>/dev/null
}
text() { printf '%s %s HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n@RAW_HEADERS@\r\n' "$1" "$2"; }
good() { read -r _ code _ && case $code in 2*) ;; *) false ;; esac; }

ready() { @READY@; }
quit() {
@QUIT@
}

have curl || have wget || have nc || have bash || echo "wrap: no curl, wget, nc or bash: sidecars are not told" >&2

trap 'exit 143' TERM
passed=0
until [ "$passed" -ge "$look" ] || [ "$passed" -ge "$timeout" ] || ready; do
  sleep 1
  passed=$((passed + 1))
done

exec 3<&0
"$@" <&3 3<&- &
child=$!
exec 3<&-
for name in TERM HUP USR1 USR2; do trap "got=1; kill -s $name $child 2>/dev/null" "$name"; done
trap 'got=1; kill -s TERM "$child" 2>/dev/null' INT QUIT
code=
while :; do
  got=
  wait "$child"
  status=$?
  [ "$status" = 127 ] && [ -n "$code" ] || code=$status
  [ -n "$got" ] || break
done
quit
exit "$code"
"""

_HELM = """\
# For the Jobs of Airflow's official Helm chart under a service mesh whose sidecars do not end by themselves. The
# chart's own arguments follow this command and stay as they are. The image needs crosswind, as the scheduler's has it.
migrateDatabaseJob:
  command: {command}
createUserJob:
  command: {command}
"""

_LOOK_S = 5


def shell(settings: WrapSettings) -> str:
    """Return a POSIX shell script that does as ``wrapping.run`` with these settings.

    With ``auto`` it waits up to 5 s for a sidecar that says it is ready: a shell cannot tell one that is not ready yet
    from none. Name the mesh to have it waited for.
    """
    doors = doors_of(settings.mesh)
    quits = [*settings.quit, *(door for door in doors if door.quit)]
    headers = sorted({header for door in quits for header in door.headers})
    asked = [f"request {door.method} {door.port} {door.path}" for door in doors if not door.quit]
    places = {
        "TIMEOUT": f"{settings.wait_timeout:g}".partition(".")[0],
        "LOOK": str(_LOOK_S) if settings.mesh == "auto" else '"$timeout"',
        # some clients try one address of a name only, and that may be ::1
        "ADDRESS": "127.0.0.1" if settings.address == "localhost" else settings.address,
        "CURL_HEADERS": "".join(f"-H '{name}: {value}' " for name, value in headers),
        "WGET_HEADERS": "".join(f"--header '{name}: {value}' " for name, value in headers),
        "RAW_HEADERS": "".join(f"{name}: {value}\\r\\n" for name, value in headers),
        "READY": " || ".join(asked) or "true",
        "QUIT": "\n".join(_quit_lines(quits)) or "  :",
    }
    text = _SHELL
    for name, value in places.items():
        text = text.replace(f"@{name}@", value)
    return text


def _quit_lines(quits: Iterable[Door]) -> Iterable[str]:
    """Yield one line per sidecar: its requests until one works."""
    by_sidecar: dict[str, list[str]] = {}
    for door in quits:
        by_sidecar.setdefault(door.sidecar, []).append(f"request {door.method} {door.port} {door.path}")
    for name, requests in by_sidecar.items():
        yield f"  {' || '.join(requests)} # {name}"


def helm_values(settings: WrapSettings) -> str:
    """Return values for the chart's jobs that migrate the database and create the first user."""
    words = ["crosswind", "wrap", "--wait-timeout", f"{settings.wait_timeout:g}", "--mesh", settings.mesh]
    for door in settings.quit:
        words += ["--quit", f"{door.method} :{door.port}{door.path}"]
    quoted = ", ".join(f'"{word}"' for word in (*words, "--", "/entrypoint"))
    return _HELM.format(command=f"[{quoted}]")
