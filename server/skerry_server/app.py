"""The Flask application: the doors on one server's services. Nothing imports this but the entry points."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.routing import IntegerConverter

from skerry_server import tokens
from skerry_server.doors import handling, native, openapi, vantage6
from skerry_server.doors.fields import LARGEST_ID
from skerry_server.server import Server

_Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class _Id(IntegerConverter):
    """An id in an address: what is no id finds nothing."""

    def __init__(self, map_: Any) -> None:
        super().__init__(map_, min=1, max=LARGEST_ID)


def create_app(server: Server) -> Flask:
    app = Flask("skerry_server", static_folder=None)
    app.url_map.converters["id"] = _Id
    app.url_map.strict_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    tokens.install(app, server.settings.tokens, server.secret)
    handling.install(app, server)
    app.register_blueprint(vantage6.blueprint(), url_prefix=server.settings.api_path or None)
    app.register_blueprint(native.blueprint(), url_prefix=f"{server.settings.api_path}/skerry")
    app.get("/robots.txt")(_robots)
    description = describe_api(server.settings.api_path)
    app.get(f"{server.settings.api_path}/openapi.json", endpoint="openapi")(lambda: jsonify(description))
    app.after_request(_headers(server.settings.cors_allowed_origins))
    app.wsgi_app = _terminated(app.wsgi_app)  # type: ignore[method-assign,assignment]
    return app


def describe_api(api_path: str = "/api") -> dict[str, Any]:
    """The main door in OpenAPI, without a server behind it."""
    app = Flask("skerry_server", static_folder=None)
    app.url_map.converters["id"] = _Id
    app.register_blueprint(vantage6.blueprint(), url_prefix=api_path or None)
    return openapi.describe(app, "vantage6", api_path)


def _robots() -> Response:
    return Response("User-agent: *\nDisallow: /\n", mimetype="text/plain")


def _headers(origins: list[str]) -> Callable[[Response], Response]:
    """No caching, no sniffing; other origins' web pages only where the configuration names them."""

    def add(response: Response) -> Response:
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        origin = request.headers.get("Origin")
        if origin is not None and (origin in origins or "*" in origins):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
            response.headers["Access-Control-Allow-Methods"] = "GET, POST, PUT, PATCH, DELETE"
            response.headers["Vary"] = "Origin"
        return response

    return add


def _terminated(wsgi: _Wsgi) -> _Wsgi:
    """Chunked bodies end by themselves here: the ASGI server has taken the chunks apart."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input_terminated"] = True
        return wsgi(environ, start_response)

    return application
