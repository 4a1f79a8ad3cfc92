"""A door's description in OpenAPI 3.1, from the schemas and callers that its handlers declare."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Flask
from pydantic import BaseModel, TypeAdapter

from skerry_server.doors.handling import Declared, declared
from skerry_server.server import own_version

_REFERENCE = "#/components/schemas/{model}"
_CONVERTER = re.compile(r"<(\w+):(\w+)>")
_PATH_TYPES = {
    "id": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
    "uuid": {"type": "string", "format": "uuid"},
}
_PROBLEM = {
    "type": "object",
    "required": ["msg"],
    "properties": {"msg": {"type": "string"}, "message": {"type": "string"}, "errors": {"type": "object"}},
}


@dataclass(frozen=True, slots=True)
class _Operation:
    path: str
    method: str
    name: str
    summary: str
    declared: Declared


def describe(app: Flask, door: str, prefix: str) -> dict[str, Any]:
    """The operations of one door, as they are registered under ``prefix``."""
    operations = sorted(_operations(app, door, prefix), key=lambda one: (one.path, one.method))
    schemas, definitions = _schemas(operations)
    paths: dict[str, Any] = {}
    for one in operations:
        path = _CONVERTER.sub(r"{\2}", one.path)
        paths.setdefault(path, {})[one.method] = _describe(one, schemas, definitions)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"skerry: {door}", "version": own_version()},
        "servers": [{"url": prefix or "/"}],
        "paths": paths,
        "components": {
            "schemas": {**definitions, "Problem": _PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _schemas(operations: Sequence[_Operation]) -> tuple[Mapping[Any, Any], Mapping[str, Any]]:
    """Of all that the operations take and answer: type → schema, and the definitions that the schemas refer to."""
    declared = [one.declared for one in operations]
    taken = {type_ for one in declared for type_ in (one.body, one.query) if type_ is not None}
    wanted = [(type_, "validation") for type_ in taken] + [
        (type_, "serialization") for type_ in {d.answer for d in declared}
    ]
    adapters: list[Any] = [(type_, mode, TypeAdapter(type_)) for type_, mode in sorted(wanted, key=str)]
    found, document = TypeAdapter.json_schemas(adapters, ref_template=_REFERENCE)
    return {type_: schema for (type_, _), schema in found.items()}, document.get("$defs", {})


def _operations(app: Flask, door: str, prefix: str) -> Iterator[_Operation]:
    for rule in app.url_map.iter_rules():
        if not rule.endpoint.startswith(f"{door}."):
            continue
        view = app.view_functions[rule.endpoint]
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            summary = (view.__doc__ or view.__name__.replace("_", " ")).split("\n", 1)[0]
            yield _Operation(
                str(rule).removeprefix(prefix), method.lower(), rule.endpoint.partition(".")[2], summary, declared(view)
            )


def _describe(one: _Operation, schemas: Mapping[Any, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": one.name, "summary": one.summary}
    if one.declared.kinds:
        described["security"] = [{"token": []}]
        described["description"] = f"For tokens of: {', '.join(one.declared.kinds)}."
    parameters = [*_path_parameters(one.path), *_query_parameters(one.declared.query, schemas, definitions)]
    if parameters:
        described["parameters"] = parameters
    if one.declared.body is not None:
        content = {"application/json": {"schema": schemas[one.declared.body]}}
        described["requestBody"] = {"required": True, "content": content}
    described["responses"] = _responses(schemas[one.declared.answer])
    return described


def _path_parameters(path: str) -> Iterator[dict[str, Any]]:
    for kind, name in _CONVERTER.findall(path):
        yield {"name": name, "in": "path", "required": True, "schema": _PATH_TYPES[kind]}


def _query_parameters(
    model: type[BaseModel] | None, schemas: Mapping[Any, Any], definitions: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    if model is None:
        return
    schema = definitions[schemas[model]["$ref"].rsplit("/", 1)[1]]
    for name, value in schema.get("properties", {}).items():
        yield {"name": name, "in": "query", "required": name in schema.get("required", []), "schema": value}


def _responses(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Without a schema of its own, an operation is always refused."""
    problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    media = answer.get("contentMediaType", "application/json")
    good = {"2XX": {"description": "Done.", "content": {media: {"schema": answer}}}} if answer else {}
    return {
        **good,
        "4XX": {"description": "Refused; msg says why.", "content": problem},
    }
