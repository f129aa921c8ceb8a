"""Types of fields in the YAML, each with its check and its JSON Schema; pure."""

from __future__ import annotations

import re
import shlex
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator as _model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from dora_config.dataflow.resolved import EnvValue, FromMachine
from dora_config.dataflow.sources import LOG_LEVELS, LogLevel, parse_log_level, parse_source
from dora_config.ids import (
    DATA_ID_PATTERN,
    LABEL_KEY_PATTERN,
    LABEL_PATTERN,
    MACHINE_ID_PATTERN,
    NODE_ID_PATTERN,
    parse_data_id,
    parse_label,
    parse_machine_id,
    parse_node_id,
)
from dora_config.yaml.quantities import MAX_SECONDS, SIZE_PATTERN, check_seconds, parse_size
from dora_config.yaml.scalars import for_a_program, written
from dora_config.yaml.wording import show

_ENV_NAME = re.compile(r"[^=\s\x00]+")
_MODULE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
_MODULE = re.compile(_MODULE_PATTERN)
ENV_NAME_PATTERN = r"^[^=\s\u0000]+$"


class Written(BaseModel):
    """Base of the models of a file: values are not coerced, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    @_model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        # an empty `env:` equals no `env`, but an empty `envv:` is an error
        if isinstance(data, dict) and None in data.values():
            known = {info.alias or name for name, info in cls.model_fields.items()}
            return {
                key: value for key, value in data.items() if value is not None or key not in known
            }
        return data


OLD_NAMES = {"deploy": "_unstable_deploy", "debug": "_unstable_debug"}
"""Names of fields in dora 0.x, which are accepted too."""


def optional(description: str, default: Any = None) -> Any:
    """Return the field of a value that may be left out."""
    return Field(default=default, description=description)


def renamed(name: str, description: str) -> Any:
    """Return the optional field of a value that has another name in dora 0.x."""
    names = AliasChoices(name, OLD_NAMES[name])
    return Field(default=None, description=description, validation_alias=names)


def wrong(sentence: str) -> PydanticCustomError:
    """Return an error whose message is used unchanged."""
    return PydanticCustomError("dora", "{sentence}", {"sentence": sentence})


def _as_text(value: Any) -> Any:
    return written(value) if isinstance(value, bool | int | float) else value


Text = Annotated[str, BeforeValidator(_as_text)]
"""A text, or a number or boolean, which counts as its text in the file."""


def _size(value: Any) -> int:
    if not isinstance(value, int | float | str):
        raise wrong(f"expected a size in bytes, or a text such as 50MB, found {show(value)}")
    return parse_size(value)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(f"expected a number of seconds, found {show(value)}")
    if isinstance(value, int) and abs(value) > MAX_SECONDS:
        raise wrong(f"must be between 0 and {MAX_SECONDS:g} seconds, found {show(value)}")
    return check_seconds(float(value))


def _positive_seconds(value: Any) -> float:
    seconds = _seconds(value)
    if seconds <= 0:
        raise wrong(f"must be greater than 0 seconds, found {seconds:g}")
    return seconds


def _env_value(value: Any) -> EnvValue:
    if isinstance(value, dict):
        name = value.get("__dora_env")
        if set(value) != {"__dora_env"} or not isinstance(name, str) or not name:
            raise wrong(
                "expected a text, number or boolean, or `{__dora_env: NAME}` "
                "for a variable of the machine that the node runs on"
            )
        return FromMachine(name=_env_name(name))
    return env_text(value)


def env_text(value: Any) -> str:
    """Return the text of a scalar for an environment variable."""
    if not isinstance(value, bool | int | float | str):
        raise wrong(f"expected a text, number or boolean, found {show(value)}")
    text = for_a_program(value)
    if "\x00" in text:
        raise wrong("the value of an environment variable must not contain a NUL character")
    return text


def _env_name(name: str) -> str:
    if not _ENV_NAME.fullmatch(name):
        raise wrong(
            f"invalid name of an environment variable {name!r}: "
            "it must not be empty nor contain '=', white space or NUL"
        )
    return name


def _any_case(*words: str) -> str:
    """Return a pattern for these words in any case, for which JSON Schema has no flag."""
    spelt = ("".join(f"[{c}{c.upper()}]" for c in word) for word in words)
    return f"^({'|'.join(spelt)})$"


def _log_level(value: Any) -> LogLevel:
    if not isinstance(value, str):
        raise wrong(f"expected one of {', '.join(LOG_LEVELS)}, found {show(value)}")
    return parse_log_level(value)


def _source(value: str) -> str:
    parse_source(value)
    return value


_MAX_ARGS = 128 * 1024
"""Most characters of `args`."""


def split_words(text: str, what: str) -> tuple[str, ...]:
    """Split a text into words as a POSIX shell does, without expansion; raise `ValueError`."""
    if len(text) > _MAX_ARGS:  # shlex takes time with the square of the length of a word
        raise ValueError(
            f"{what} must not be longer than {_MAX_ARGS} characters, found {len(text)} (the"
            " limit of Linux for one argument); put the text into a file"
        )
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        reason = (
            str(error).rstrip(".").lower().replace("no closing quotation", "a quote is not closed")
        )
        reason = reason.replace("no escaped character", "nothing follows the last backslash")
        raise ValueError(f"invalid quoting in {what}: {reason}: {text.strip()[:80]!r}") from None


def _args(value: str) -> str:
    _refuse_nul(value)
    split_words(value, "node args")
    return value


def build_lines(text: str) -> tuple[str, ...]:
    """Return the commands of a `build` text: its lines that are not blank."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _build(value: str) -> str:
    _refuse_nul(value)
    for line in build_lines(value):
        split_words(line, "build command")
    return value


def _refuse_nul(value: str) -> None:
    if "\x00" in value:
        raise wrong("must not contain a NUL character")


def _text(value: str) -> str:
    _refuse_nul(value)
    if not value.strip():
        raise wrong("must not be empty")
    return value


def _warm(value: Any) -> Literal[False] | list[str]:
    if value is False:
        return False
    if not isinstance(value, list):
        raise wrong(f"expected false or a list of Python modules, found {show(value)}")
    for name in value:
        if not (isinstance(name, str) and _MODULE.fullmatch(name)):
            raise wrong(f"expected the name of a Python module, such as numpy, found {show(name)}")
    return value


class ShortForm(NamedTuple):
    """Accepts the value of `key` in place of a mapping with only that key."""

    key: str
    kinds: type | tuple[type, ...] = (str, bool, int, float)

    def _expanded(self, value: Any) -> Any:
        return {self.key: value} if isinstance(value, self.kinds) else value

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.no_info_before_validator_function(self._expanded, handler(source))

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        whole = handler(core)
        return {"anyOf": [handler.resolve_ref_schema(whole)["properties"][self.key], whole]}


SCALAR_TYPES = ["string", "number", "boolean"]
"""Types of values in the JSON Schema that a text field accepts."""


def text_schema(pattern: str | None = None, **bounds: int) -> WithJsonSchema:
    """Return the JSON Schema of a text; `minimum=0` refuses numbers that start with '-'."""
    matching = {} if pattern is None else {"pattern": pattern}
    return WithJsonSchema({"type": SCALAR_TYPES, **matching, **bounds})


NodeIdField = Annotated[Text, AfterValidator(parse_node_id), text_schema(NODE_ID_PATTERN)]
InputIdField = Annotated[
    Text, AfterValidator(partial(parse_data_id, what="input id")), text_schema(DATA_ID_PATTERN)
]
OutputIdField = Annotated[
    Text, AfterValidator(partial(parse_data_id, what="output id")), text_schema(DATA_ID_PATTERN)
]
MachineIdField = Annotated[
    Text, AfterValidator(parse_machine_id), text_schema(MACHINE_ID_PATTERN, minimum=0)
]
LabelKeyField = Annotated[
    Text,
    AfterValidator(partial(parse_label, what="label key")),
    WithJsonSchema({"type": "string", "pattern": LABEL_KEY_PATTERN}),
]
LabelValueField = Annotated[
    Text, AfterValidator(partial(parse_label, what="label value")), text_schema(LABEL_PATTERN)
]
LabelsField = dict[LabelKeyField, LabelValueField]
TextField = Annotated[Text, AfterValidator(_text), text_schema(minLength=1)]
FreeTextField = Annotated[Text, text_schema()]
ArgsField = Annotated[Text, AfterValidator(_args), text_schema(maxLength=_MAX_ARGS)]
BuildField = Annotated[Text, AfterValidator(_build), text_schema()]
SizeField = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": SIZE_PATTERN}]}
    ),
]
SecondsField = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": MAX_SECONDS}),
]
PositiveSecondsField = Annotated[
    float,
    BeforeValidator(_positive_seconds),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": MAX_SECONDS}),
]
LogLevelField = Annotated[
    LogLevel,
    BeforeValidator(_log_level),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": list(LOG_LEVELS)},
                {"type": "string", "pattern": _any_case(*LOG_LEVELS, "warning")},
            ]
        }
    ),
]
SOURCE_PATTERN = (
    r"^(dora/timer/(secs|millis|micros|nanos)/[0-9]+|dora/timer/hz/[^/]+"
    r"|dora/logs(/[A-Za-z]+(/[A-Za-z0-9_.-]+)?)?"
    r"|(?!dora/)[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_.-]+)+)$"
)
SourceField = Annotated[
    Text, AfterValidator(_source), WithJsonSchema({"type": "string", "pattern": SOURCE_PATTERN})
]
EnvNameField = Annotated[
    str, AfterValidator(_env_name), WithJsonSchema({"type": "string", "pattern": ENV_NAME_PATTERN})
]
EnvValueField = Annotated[
    Any,
    AfterValidator(_env_value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": SCALAR_TYPES},
                {
                    "type": "object",
                    "properties": {"__dora_env": {"type": "string", "pattern": ENV_NAME_PATTERN}},
                    "required": ["__dora_env"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
EnvField = dict[EnvNameField, EnvValueField]
WarmField = Annotated[
    Any,
    AfterValidator(_warm),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": False},
                {"type": "array", "items": {"type": "string", "pattern": _MODULE_PATTERN}},
            ]
        }
    ),
]
MachineIdsField = Annotated[tuple[MachineIdField, ...], Field(strict=False)]
PortNumberField = Annotated[int, Field(ge=1, le=65535)]
RefusedField = Annotated[Any, WithJsonSchema({"type": "null"})]
