#!/usr/bin/env bash
# Sets up, then runs the tests; arguments go to pytest: bash scripts/test.sh -k sampling
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONPATH # this tree is tested, whatever else is on the path
bash scripts/setup.sh dev
exec .venv/bin/python -m pytest "$@"
