#!/usr/bin/env bash
# Format, lint, types, and the tests of the code's own shape (layers, lazy imports, banned names).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONPATH
bash scripts/setup.sh dev
.venv/bin/python -m ruff format --check .
.venv/bin/python -m ruff check .
.venv/bin/python -m mypy
.venv/bin/python -m pytest -q tests/meta
