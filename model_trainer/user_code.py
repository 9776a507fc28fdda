"""The user's own code in a declared value: a `Call` is a function by its dotted path, a `Live` any Python object."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from model_trainer.config import Config, to_plain
from model_trainer.dotted import import_dotted, name_of
from model_trainer.errors import ConfigError

__all__ = ["Call", "Live"]


class Call(Config):
    """The user's own code, as a dotted path and keyword arguments; `make` imports the path and calls it.

    Example:
        >>> Call("my_code.make_loss", alpha=0.5).to_dict()
        {'type': 'my_code.make_loss', 'alpha': 0.5}
    """

    path: str
    arguments: dict[str, Any] = {}

    def __init__(self, path: str, /, **arguments: Any) -> None:
        if "." not in path:
            raise ConfigError(f"should be a dotted path such as 'my_code.make_loss', got {path!r}.", "path")
        super().__init__(path=path, arguments=arguments)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(cls._read, handler(source))

    @staticmethod
    def _read(value: Any) -> Any:
        if isinstance(value, Call):
            return value
        if isinstance(value, Mapping) and "." in str(value.get("type", "")):
            return {"path": value["type"], "arguments": {key: item for key, item in value.items() if key != "type"}}
        if isinstance(value, Mapping) and set(value) == {"path", "arguments"}:  # from __init__
            return value
        raise ConfigError(f"should be Call('package.function', ...), got {value!r}.")

    def accepts(self, name: str) -> bool:
        """Whether the callable has an argument `name`; raises ConfigError if it cannot be imported."""
        try:
            parameters = inspect.signature(import_dotted(self.path)).parameters
        except (TypeError, ValueError):  # no signature
            return False
        kinds = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        return name in parameters and parameters[name].kind in kinds

    def make(self, **more: Any) -> Any:
        """Imports the path and calls it with the declared arguments and `more`.

        Raises:
            ConfigError: it cannot be imported, or does not accept the arguments.
        """
        function = import_dotted(self.path)
        try:
            return function(**{**self.arguments, **more})
        except TypeError as error:
            raise ConfigError(f"{self.path} could not be called: {error}.") from error

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.path} | {key: to_plain(value) for key, value in self.arguments.items()}


class Live(Config):
    """Any Python object, such as a Keras optimizer; a run's JSON has its class name only, and cannot rebuild it.

    Example:
        >>> Training(optimizer=keras.optimizers.Adagrad()).optimizer.to_dict()
        {'type': 'Live', 'object': 'keras.src.optimizers.adagrad.Adagrad'}
    """

    value: Any

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(cls._wrap, handler(source))

    @staticmethod
    def _wrap(value: Any) -> Any:
        if isinstance(value, Live) or (isinstance(value, Mapping) and set(value) == {"value"}):
            return value
        if isinstance(value, Mapping) and value.get("type") == "Live":
            raise ConfigError(
                f"was a live Python object ({value.get('object')}), which JSON cannot carry. "
                "Train from the .py file that made it, or declare it as Call('package.function', ...)."
            )
        if value is None or isinstance(value, (str, int, float, list, tuple, Mapping, Config)):
            raise ConfigError(f"should be an object, got {value!r}.")
        return {"value": value}

    def to_dict(self) -> dict[str, Any]:
        return {"type": "Live", "object": name_of(self.value)}
