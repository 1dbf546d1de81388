#!/bin/sh
# Checks what no compiler does: the floors, the length of files, and paths of somebody's machine.
#
#   tools/lint-floors.sh [ROOT]    the project root; default: the current folder
#
# A room of src/ includes itself and rooms on a lower floor, never another room of its own floor or one above.
set -eu
cd "${1:-.}"
status=0

complain() {
    [ -z "$1" ] || { echo "$1" >&2; status=1; }
}

floors=$(find src -name '*.[ch]' | LC_ALL=C sort | xargs awk '
    BEGIN {
        split("base 0 tensor 1 model 2 dialect 2 store 2 engine 3 learn 3 backend 4 stage 5 serve 6 cli 7", f, " ")
        for (i = 1; i in f; i += 2) floor[f[i]] = f[i + 1]
    }
    FNR == 1 {
        split(FILENAME, part, "/")
        room = part[2]
        if (!(room in floor)) print FILENAME ": src/" room " is no room of the plan; add its floor to tools/lint-floors.sh"
    }
    /^[ \t]*#[ \t]*include[ \t]*[<"]/ {
        quoted = $0 ~ /^[^<]*"/
        name = $0
        sub(/^[^<"]*[<"]/, "", name)
        sub(/[>"].*/, "", name)
        split(name, to, "/")
        where = FILENAME ":" FNR ": "
        if (name ~ /(^|\/)\.\.?\//)
            print where "\"" name "\" climbs by dots; name it from src/"
        else if (to[1] in floor && name ~ /\//) {
            if (to[1] != room && floor[to[1]] >= floor[room])
                print where room " (floor " floor[room] ") includes " name " (floor " floor[to[1]] ")"
        } else if (quoted && name != "pare.h")
            print where "\"" name "\" does not begin with a room"
    }')
complain "$floors"

# Sources of ours, whether or not they are committed yet; where there is no git, all of them.
sources() {
    if git rev-parse --git-dir >/dev/null 2>&1; then
        git ls-files --cached --others --exclude-standard src include tests web tools cmake bench deploy Makefile \
            CMakeLists.txt .ci
    else
        find src include tests web tools cmake bench deploy Makefile CMakeLists.txt .ci -type f \
            -not -path '*/node_modules/*' 2>/dev/null || true
    fi | grep -E '(\.(c|h|js|mjs|css|html|sh|py|cmake|S|yaml|yml|txt)|Makefile|run)$' | while read -r file; do
        [ ! -f "$file" ] || echo "$file"
    done
}

long=$(sources | grep -E '\.(c|h|js|mjs|css|html|sh|py|cmake)$' | tr '\n' '\0' |
    xargs -0 awk 'FNR == 801 { print FILENAME ": longer than 800 lines; one file is one idea, so split it" }')
complain "$long"

paths=$(sources | tr '\n' '\0' | xargs -0 grep -nE "(^|[^[:alnum:]_./-])/(work|home|root|Users)/[[:alnum:]_.]" || true)
[ -z "$paths" ] || complain "$(echo "$paths" | sed 's/^\([^:]*:[0-9]*\):.*/\1: a path of one machine/')"

exit $status
