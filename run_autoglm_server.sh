#!/usr/bin/env bash
# Sets up this checkout on the first run, then serves; --help lists the options.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for option in "$@"; do
  case "$option" in
    -h | --help)
      python=$("$here/scripts/setup.sh" python)
      PYTHONPATH="$here/python_backend" exec "$python" -m autoglm_backend.launcher --help
      ;;
  esac
done
"$here/scripts/setup.sh" serve
exec "$here/.venv/bin/python" -m autoglm_backend.launcher "$@"
