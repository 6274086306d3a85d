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
# the markers that [tool.uv] environments states for all of them say nothing
  sed -E "s/python_full_version < '3\.13' and //g; s/ and platform_machine == 'x86_64' and sys_platform == 'linux'//g; s/ ; (platform_machine == 'x86_64' and sys_platform == 'linux'|python_full_version < '3\.13')$//; s/ and python_full_version < '3\.13'//g" "$new"
} > constraints.txt
