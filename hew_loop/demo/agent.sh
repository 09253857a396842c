#!/bin/sh
# The agent of `loop demo` does word for word what its task says. It stands where a coding agent would stand: it starts
# in a worktree of its own, reads the prompt from $HEW_PROMPT_FILE, changes files, and answers on its standard output.
set -eu

# The rest of the first line of the prompt that begins with "$1: ".
said() {
    sed -n "s/^$1: //p" "$HEW_PROMPT_FILE" | head -n 1
}

# Status, summary, and (if there is one) the id of the task to start next.
answer() {
    printf '```loop_result\n{"status": "%s", "summary": "%s"%s}\n```\n' "$1" "$2" "${3:+, \"next_iteration\": [\"$3\"]}"
}

# A merge is in progress: the last attempt's work met what had landed before it. Keep what both sides added.
conflicts=$(git diff --name-only --diff-filter=U)
if [ -n "$conflicts" ]; then
    for file in $conflicts; do
        sed -e '/^<<<<<<< /d' -e '/^=======$/d' -e '/^>>>>>>> /d' "$file" > "$file.mended"
        mv "$file.mended" "$file"
        git add "$file"
    done
    git commit -q --no-edit
    answer done "Kept what both sides had added to $conflicts."
    exit
fi

if [ "$(said answer)" = no_change ]; then
    answer no_change "It is there already."
    exit
fi

# "meet: 2" in a task: wait until so many agents are here. They started from the same commit then, so their work
# collides for certain, however fast or slow this machine is.
if [ -n "$(said meet)" ]; then
    place=$(dirname "$0")/meeting
    : > "$place/$HEW_TASK_ID"
    patience=400
    while [ "$(ls "$place" | wc -l)" -lt "$(said meet)" ] && [ "$patience" -gt 0 ]; do
        patience=$((patience - 1))
        sleep 0.05
    done
fi

# "file: PATH", and below it the new content, indented by four columns.
awk '
    /^file: / { path = substr($0, 7); lines = blank = 0; next }
    path == "" { next }
    /^    / { for (; blank > 0; blank--) print "" > path; print substr($0, 5) > path; lines++; next }
    /^$/ { if (lines > 0) blank++; next }
    { path = "" }
' "$HEW_PROMPT_FILE"

if [ "$HEW_ATTEMPT" -gt 1 ]; then
    echo "# Attempt $HEW_ATTEMPT: it is what was asked for." >> "$(said file)"
fi

# What is left uncommitted is committed by the loop.
if [ "$(said commit)" != no ]; then
    git add -A
    git commit -q -m "$(said title)"
fi
answer done "Wrote $(said file)." "$(said next)"
