#!/usr/bin/env bash
# Run before, in a checkout on a machine with network: lays the wheels that a GPU machine lacks into .whl/.
# That machine has torch, transformers, peft and their needs, in whatever versions. EXTRA_WHEELS adds more packages.
set -euo pipefail
shopt -s extglob
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python3}
wanted=(msgspec sdnotify watchdog structlog detect-secrets gguf)
read -ra more <<<"${EXTRA_WHEELS:-}"
wanted+=("${more[@]}")
platforms=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
for glibc in 28 27 24 17 12 5; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
rm -rf .whl
mkdir .whl
for name in "${wanted[@]}"; do
    # Pure Python that is only there as a source is built here: its wheel fits every Python 3.
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "${WHEEL_PYTHON:-3.12}" \
        --implementation cp "${platforms[@]}" -d .whl "$name" 2>/dev/null ||
        "$python" -m pip wheel --quiet --no-deps -w .whl "$name" || true
    compgen -G ".whl/${name//-/[-_]}-*.whl" >/dev/null || {
        echo "prepare.sh: no wheel of $name came" >&2
        exit 1
    }
done
du -sh .whl
