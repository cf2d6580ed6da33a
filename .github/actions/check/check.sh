#!/bin/sh
# Check the models below the current folder, and hand the report to the runner.
set -eu

report=$RUNNER_TEMP/modelbuild-report
rm -rf "$report"
mkdir "$report"

set -- ci --json --markdown "$report/models.md" --annotations "$report/annotations"
[ -z "${BUILD:-}" ] || set -- "$@" --build "$BUILD"
[ -z "${VERIFY:-}" ] || set -- "$@" --verify "$VERIFY"
[ -z "${BASE:-}" ] || set -- "$@" --base "$BASE"

# What is printed may have text of the change in it, and none of that is a command to the runner.
# One stream, so that it stays between the two marks.
exec 2>&1
mark=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
echo "::stop-commands::$mark"
code=0
"$RUNNER_TEMP/modelbuild/bin/modelbuild" "$@" >"$report/report.json" || code=$?
[ ! -e "$report/models.md" ] || cat "$report/models.md"
echo
echo "::$mark::"

if [ -e "$report/models.md" ]; then
  cat "$report/annotations"
  head -c 1000000 "$report/models.md" >>"$GITHUB_STEP_SUMMARY" # the runner takes 1 MiB
fi
exit "$code"
