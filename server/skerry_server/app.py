"""The Flask application: the doors on one server's services. Nothing imports this but the entry points."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.routing import IntegerConverter

from skerry_server import addresses, compression, tokens
from skerry_server.doors import handling, native, openapi, vantage6
from skerry_server.doors.fields import LARGEST_ID
from skerry_server.server import Server
from skerry_server.settings import Settings

_SLASHES = re.compile("//+")
_Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class _Id(IntegerConverter):
    """An id in an address: what is no id finds nothing."""

    def __init__(self, map_: Any) -> None:
        super().__init__(map_, min=1, max=LARGEST_ID)


def create_app(server: Server) -> Flask:
    app = Flask("skerry_server", static_folder=None)
    app.url_map.converters["id"] = _Id
    app.url_map.strict_slashes = app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    tokens.install(app, server.settings.tokens, server.secret, server.clock)
    handling.install(app, server)
    app.register_blueprint(vantage6.blueprint(), url_prefix=server.settings.api_path or None)
    app.register_blueprint(native.blueprint(), url_prefix=f"{server.settings.api_path}/skerry")
    app.get("/robots.txt")(_robots)
    # Made when somebody asks for the first time: a restart does not wait for it.
    description = functools.cache(functools.partial(describe_api, server.settings.api_path))
    app.get(f"{server.settings.api_path}/openapi.json", endpoint="openapi")(lambda: jsonify(description()))
    app.before_request(_refuse_unsafe(server.settings))
    app.after_request(_headers(server.settings))
    compression.install(app)
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


def _refuse_unsafe(settings: Settings) -> Callable[[], Response | None]:
    """No body that unpacks to a larger one; and behind a proxy, nobody who does not come through it."""

    def look() -> Response | None:
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            return _refusal("A compressed body is not taken: send it as it is.", 415)
        plain = settings.tls is None and bool(settings.trusted_proxies)
        if plain and not addresses.may_speak_plainly(request.remote_addr, settings.trusted_proxies):
            return _refusal("This server is to be reached through its reverse proxy.", 403)
        return None

    return look


def _refusal(message: str, status: int) -> Response:
    response = jsonify({"msg": message})
    response.status_code = status
    return response


_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def _headers(settings: Settings) -> Callable[[Response], Response]:
    """No caching, sniffing or framing; other origins' web pages only where the configuration names them.

    Where others can reach the server at all, it is by TLS, and browsers are told to keep to that.
    """
    origins = settings.cors_allowed_origins
    fixed = _HEADERS | ({"Strict-Transport-Security": "max-age=31536000"} if _has_tls(settings) else {})

    def add(response: Response) -> Response:
        response.headers.update(fixed)
        origin = request.headers.get("Origin")
        if origin is not None and (origin in origins or "*" in origins):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
            response.headers["Access-Control-Allow-Methods"] = "GET, POST, PUT, PATCH, DELETE"
            response.vary.add("Origin")
        return response

    return add


def _has_tls(settings: Settings) -> bool:
    return settings.tls is not None or bool(settings.trusted_proxies)


def _terminated(wsgi: _Wsgi) -> _Wsgi:
    """Chunked bodies end by themselves here: the ASGI server has taken the chunks apart.

    Doubled slashes, which a client makes whose base path ends in one, are one: a redirect would name a host that the
    caller may have made up.
    """

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input_terminated"] = True
        environ["PATH_INFO"] = _SLASHES.sub("/", environ.get("PATH_INFO", ""))
        return wsgi(environ, start_response)

    return application
