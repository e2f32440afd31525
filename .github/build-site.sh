#!/usr/bin/env bash
# The site of all published tables: build-site.sh RECORDS OUT. Needs mhc-bench on the path.
set -euo pipefail
records=$1 out=$2
mkdir -p "$out"
# folders are called <suite>-<protocol id>; other names are no suite, whoever made them
suites=$(find "$records" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' |
  sed -nE 's/^([A-Za-z0-9][A-Za-z0-9._+-]*)-[0-9a-f]{10}$/\1/p' | sort -u)
{
  echo '<!doctype html><html lang="en"><meta charset="utf-8"><title>mhc-bench: results</title>'
  echo '<meta name="viewport" content="width=device-width"><h1>mhc-bench: results</h1><ul>'
} > "$out/index.html"
for suite in $suites; do
  mhc-bench leaderboard "$records" --suite "$suite" --out "$out/$suite"
  page=leaderboard.md
  if [ -f "$out/$suite/leaderboard.html" ]; then page=leaderboard.html; fi
  echo "<li><a href=\"$suite/$page\">$suite</a></li>" >> "$out/index.html"
done
echo '</ul></html>' >> "$out/index.html"
