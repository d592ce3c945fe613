#!/usr/bin/env bash
# Formats the code and mends what ruff can mend by itself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh dev
.venv/bin/python -m ruff check --fix . || true
.venv/bin/python -m ruff format .
