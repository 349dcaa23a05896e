"""Functions by name: `module:qualname`, found by the caller and imported by the worker.

A function of the script that runs has the module `__main__`, which nobody else can import. If the script is a file that can be
imported, as `multiprocessing` demands too, its functions go by the file's name.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Callable, Dict, List, Optional

from .errors import MessageError

#: In a worker: what `__main__` is where the call comes from.
MAIN = "LSWITCH_MAIN"


class NoNameError(MessageError):
    """The function cannot be imported by a name."""


def name_of(function: Callable[..., Any]) -> str:
    """The name under which a worker imports a function.

    Raises NoNameError, which says what to do.
    """
    module = getattr(function, "__module__", None)
    qualname = getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str):
        raise NoNameError(f"{function!r} is no function that can be imported by name; {_BY_VALUE}")
    if "<" in qualname:
        raise NoNameError(f"{module}.{qualname} is made within a function and cannot be imported by name; {_BY_VALUE}")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is not function and found != function:
        raise NoNameError(f"{module}.{qualname} is not what is called here and cannot be imported by name; {_BY_VALUE}")
    if module == "__main__":
        module = main_module()
    return f"{module}:{qualname}"


_BY_VALUE = "move it to the top of a module, or send it by value: Executor(serializer=\"cloudpickle\")"


def main_module() -> str:
    """The name by which workers import the script that runs.

    Raises NoNameError if it is none that can be imported.
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        if spec.name.endswith("__main__"):
            raise NoNameError(
                f"functions of {spec.name} cannot be imported by a worker without running it; move them into a module beside it, or send them "
                "by value: Executor(serializer=\"cloudpickle\")"
            )
        return str(spec.name)
    path: Optional[str] = getattr(main, "__file__", None)
    if path is None:
        raise NoNameError(
            "functions that were typed in, or come from a notebook, cannot be imported by a worker; send them by value: "
            "Executor(serializer=\"cloudpickle\")"
        )
    stem, suffix = os.path.splitext(os.path.basename(path))
    if suffix != ".py" or not stem.isidentifier():
        raise NoNameError(
            f"functions of {path} cannot be imported by a worker, since its name is no module's; move them into a module, or "
            "send them by value: Executor(serializer=\"cloudpickle\")"
        )
    known = sys.modules.get(stem)
    if known is not None and known is not main and getattr(known, "__file__", None) != path:
        raise NoNameError(
            f"functions of {path} cannot be imported by a worker, since another module is called {stem}; rename the script, or send "
            "them by value: Executor(serializer=\"cloudpickle\")"
        )
    # Pickles that come back name it so.
    sys.modules.setdefault(stem, main)  # type: ignore[arg-type]
    return str(stem)


def main_folder() -> Optional[str]:
    """Where the script lies that runs, if workers are to look there."""
    main = sys.modules.get("__main__")
    path: Optional[str] = getattr(main, "__file__", None)
    if path is None or getattr(main, "__spec__", None) is not None:
        return None
    return os.path.dirname(os.path.abspath(path))


def search_path() -> List[str]:
    """Where this process looks for modules, for a worker on the same machine."""
    folders = [os.path.abspath(folder) for folder in sys.path]
    own = main_folder()
    if own is not None:
        folders.insert(0, own)
    # What lies beside the interpreter the worker finds by itself, and nothing must go ahead of it that would not here.
    return [folder for folder in dict.fromkeys(folders) if os.path.exists(folder)]


class _Importing:
    """While a worker imports, no executor may be made: a script that makes one whenever it is imported would start workers without end."""

    now: Optional[str] = None

    def __init__(self, module: str) -> None:
        self._module = module

    def __enter__(self) -> None:
        _Importing.now = self._module

    def __exit__(self, *_: object) -> None:
        _Importing.now = None


def imported_by_a_worker() -> Optional[str]:
    """The module that this process, a worker, imports just now, if any."""
    return _Importing.now


_found: Dict[str, Callable[..., Any]] = {}


def named(name: str) -> Callable[..., Any]:
    """Imports a function; once."""
    function = _found.get(name)
    if function is None:
        function = _found[name] = _import(name)
    return function


def _import(name: str) -> Callable[..., Any]:
    module, _, qualname = name.partition(":")
    try:
        with _Importing(module):
            found: Any = importlib.import_module(module)
    except ImportError as error:
        raise MessageError(
            f"the worker cannot import {module}, where the function {qualname} is from: {error}; deploy it with the worker, or send the "
            "function by value: Executor(serializer=\"cloudpickle\")"
        ) from error
    for part in qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise MessageError(f"the worker's module {module} has no {qualname}; is it another version than the caller's?") from None
    if not callable(found):
        raise MessageError(f"{name} is no function")
    function: Callable[..., Any] = found
    return function


def stand_in_for_main() -> None:
    """In a worker, so that pickles of what was defined in the caller's script are found."""
    name = os.environ.get(MAIN)
    if name and getattr(sys.modules.get("__main__"), "__lswitch_main__", None) != name:
        with _Importing(name):
            module = importlib.import_module(name)
        module.__lswitch_main__ = name  # type: ignore[attr-defined]
        sys.modules["__main__"] = module
