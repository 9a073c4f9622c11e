"""Triton's interpreter without what it does again in every call of a function."""

import pytest


@pytest.fixture(autouse=True)
def patch_once_a_launch(monkeypatch):
    """Let the interpreter replace Triton's language once for each kernel it runs.

    It does so again whenever the kernel calls a function, with the same result for all
    functions of a module.
    """
    try:
        from triton.runtime import interpreter
    except ImportError:
        return
    if not hasattr(interpreter, '_LangPatchScope'):  # an older Triton
        return
    scope, patched = interpreter._LangPatchScope, set()
    patch, restore = interpreter._patch_lang, scope.restore

    def patch_once(function):
        if function.__module__ in patched:
            return None  # only a launch, whose patch is its first, asks for it
        patched.add(function.__module__)
        return patch(function)

    def restore_all(self):
        patched.clear()
        restore(self)

    monkeypatch.setattr(interpreter, '_patch_lang', patch_once)
    monkeypatch.setattr(scope, 'restore', restore_all)
