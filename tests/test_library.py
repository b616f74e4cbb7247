"""What accl_ext says of its binary: found, fits, or why not. No build is needed here."""

import json
import sys
import warnings

import pytest
import torch

from accl_ext import _library

MINOR = ".".join(torch.__version__.split(".")[:2])


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder in the place of accl_ext's own, with nothing else on the path, and no cache."""
    folder = tmp_path / "here" / "accl_ext"
    folder.mkdir(parents=True)
    monkeypatch.setattr(_library, "__file__", str(folder / "_library.py"))
    monkeypatch.setattr(_library, "_load", _library._load.__wrapped__)
    monkeypatch.setattr(sys, "path", [str(folder.parent)])
    return folder


def write_binary(folder, **facts):
    """A build whose files are there; the library itself is no library."""
    config = {"version": _library.__version__, "torch": torch.__version__, "python": "3.11"}
    (folder / _library._CONFIG).write_text(json.dumps(config | facts))
    (folder / _library._OPERATORS).write_bytes(b"not a library")
    (folder / _library._MODULE).write_bytes(b"")


def test_missing_binary_is_a_reason_without_a_warning(package):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reason = _library.load()
    assert reason == (
        f"there is no compiled library (libaccl_ext_ops.so) in {package} nor in an installed "
        "accl_ext. Build it: pip install ."
    )
    assert _library.build_info() == {
        "version": _library.__version__,
        "loaded": False,
        "reason": reason,
    }


def test_other_torch_warns_with_both_versions_and_the_remedy(package):
    write_binary(package, torch="2.9.1+cpu")
    with pytest.warns(RuntimeWarning, match="compiled operators are off") as caught:
        reason = _library.load()
    assert reason.startswith(
        f"it was built for torch 2.9 (with 2.9.1+cpu), but this is torch {torch.__version__}. "
        "Rebuild it for this environment"
    )
    assert "pip install --force-reinstall --no-deps ." in str(caught[0].message)


def test_build_info_still_tells_what_does_not_fit(package):
    write_binary(package, torch="2.9.1+cpu")
    with pytest.warns(RuntimeWarning):
        info = _library.build_info()
    assert info["torch"] == "2.9.1+cpu"
    assert info["loaded"] is False


def test_patch_version_and_local_label_of_torch_may_differ(package):
    write_binary(package, torch=f"{MINOR}.99+cu999")
    with pytest.warns(RuntimeWarning, match="does not load"):  # it gets as far as loading
        _library.load()


def test_other_version_of_accl_ext(package):
    write_binary(package, version="0.0.1")
    with pytest.warns(RuntimeWarning):
        reason = _library.load()
    assert f"the sources of accl_ext {_library.__version__}, but the binary in {package}" in reason
    assert "is of 0.0.1" in reason


@pytest.fixture
def contract(package):
    """Sources beside the package, as in a clone, and the digest that a build of them holds."""
    for name in _library._CONTRACT:
        path = package.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"// {name}\n")
    return _library._contract()


@pytest.mark.parametrize("name", _library._CONTRACT)
def test_binary_of_earlier_sources_of_the_same_version(package, contract, name):
    write_binary(package, contract=contract)
    with pytest.warns(RuntimeWarning, match="does not load"):  # it fits, so it is opened
        _library.load()
    (package.parent / name).write_text("// another schema\n")
    with pytest.warns(RuntimeWarning, match="compiled operators are off"):
        reason = _library.load()
    assert reason.startswith(
        f"the sources in {package.parent} have changed since the binary in {package} was built"
    )
    assert "pip install --force-reinstall --no-deps ." in reason


def test_binary_from_before_there_was_a_digest(package, contract):
    write_binary(package)
    with pytest.warns(RuntimeWarning):
        assert "have changed since the binary" in _library.load()


def test_installed_binary_of_other_sources_than_the_clone(package, contract, tmp_path, monkeypatch):
    installed = tmp_path / "site-packages" / "accl_ext"
    installed.mkdir(parents=True)
    write_binary(installed, contract="of another commit")
    monkeypatch.setattr(sys, "path", [str(package.parent), str(installed.parent)])
    with pytest.warns(RuntimeWarning):
        assert f"since the binary in {installed} was built" in _library.load()


def test_installed_package_has_no_sources_to_compare(package):
    assert _library._contract() is None
    write_binary(package, contract="whatever")
    with pytest.warns(RuntimeWarning, match="does not load"):
        _library.load()


def test_other_python(package):
    write_binary(package, python="3.7")
    (package / _library._MODULE).unlink()
    with pytest.warns(RuntimeWarning):
        reason = _library.load()
    assert reason.startswith("it was built for Python 3.7, but this is Python 3.")


def test_broken_library_is_a_reason_not_a_crash(package):
    write_binary(package)
    with pytest.warns(RuntimeWarning):
        reason = _library.load()
    assert reason.startswith(f"the library in {package} does not load: ")
    assert "invalid ELF header" in reason or "file too short" in reason


def test_broken_configuration_is_a_reason_not_a_crash(package):
    write_binary(package)
    (package / _library._CONFIG).write_text("{")
    with pytest.warns(RuntimeWarning, match="does not load"):
        _library.load()


def test_sources_without_a_binary_use_the_installed_one(package, tmp_path, monkeypatch):
    installed = tmp_path / "site-packages" / "accl_ext"
    installed.mkdir(parents=True)
    write_binary(installed, torch="2.9.1+cpu")
    monkeypatch.setattr(sys, "path", [str(package.parent), str(tmp_path), str(installed.parent)])
    assert _library._folder() == installed
    write_binary(package)
    assert _library._folder() == package


def test_build_info_of_this_build():
    if _library.load() is not None:
        pytest.skip(f"accl_ext is not built: {_library.load()}")
    info = _library.build_info()
    assert info["loaded"] is True
    assert info["reason"] is None
    assert info["version"] == _library.__version__
    assert info["torch"].split(".")[:2] == torch.__version__.split(".")[:2]
    assert info["instruction_set"] in info["instruction_sets"]
    assert (info["cuda"] is None) == (info["cuda_architectures"] == [])
    assert info["cuda"] is not None or info["cuda_driver"] is None
    assert info["contract"] == (_library._contract() or info["contract"])
