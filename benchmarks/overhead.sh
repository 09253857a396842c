#!/bin/sh
# What a person would write instead: each task in a worktree of its own, four at a time, merges one after another.
#   overhead.sh AGENT WORKTREES JOBS < list of task ids
set -eu
agent=$1 worktrees=$2 jobs=$3
export agent worktrees
mkdir -p "$worktrees"
git worktree add -q -b integration "$worktrees/integration"
# Registering and removing worktrees under a lock too: git fails on another's that is only half there.
xargs -P "$jobs" -I '{}' sh -eu -c '
    task={}
    flock "$worktrees/list.lock" git worktree add -q --no-checkout -b "task/$task" "$worktrees/$task" integration
    cd "$worktrees/$task"
    git reset -q --hard
    HEW_TASK_ID=$task sh "$agent"
    git add -A
    git commit -q -m "$task"
    cd "$OLDPWD"
    flock "$worktrees/merge.lock" git -C "$worktrees/integration" merge -q --no-ff -m "Land $task" "task/$task"
    rm -rf "${worktrees:?}/$task"
    flock "$worktrees/list.lock" git worktree prune
    flock "$worktrees/list.lock" git branch -q -D "task/$task"
'
git merge -q --ff-only integration
git worktree remove "$worktrees/integration"
git branch -q -d integration
