#!/usr/bin/env bash
# Writes constraints.txt: every direct and transitive dependency of every extra, pinned for Python 3.10 to 3.12.
# Pins that still fit are kept; --upgrade takes the newest versions.
set -euo pipefail
cd "$(dirname "$0")/.."
new=$(mktemp)
trap 'rm -f "$new"' EXIT
cp constraints.txt "$new"
.venv/bin/uv pip compile pyproject.toml --output-file "$new" --quiet --universal --python-version 3.10 --all-extras \
  --group dev --no-header --no-annotate --no-emit-index-url "$@"
{
  echo "# Every version that an install may take (make constraints); what is installed stands in pyproject.toml."
  sed -E "s/ ; sys_platform == 'linux'$//; s/ and sys_platform == 'linux'//g" "$new"
} > constraints.txt
