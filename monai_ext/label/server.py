"""The web server: MONAI Label's models and clients, with only those addresses that check what they are given.

Started by ``python -m monailabel.main start_server --uvicorn_app monai_ext.label.server:app``; see ``label-serve``.
"""

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from monailabel.config import settings
from monailabel.endpoints import info, login
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.utils.app import app_instance

from monai_ext._version import __version__
from monai_ext.base import InputError, input_error_in
from monai_ext.label import checked_routes, datastore_routes, other_routes
from monai_ext.label.origins import LOOPBACK, is_own_host, may_act
from monai_ext.label.volume_task import RESEARCH_ONLY


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    app = app_instance()
    app.server_mode(True)
    app.on_init_complete()
    yield


def build() -> FastAPI:
    """Return the server; other sites may read its answers only when their origins are named."""
    # Without the pages of documentation, whose scripts come from another site.
    server = FastAPI(
        title="monai-ext",
        description=RESEARCH_ONLY,
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    origins = [str(origin).rstrip("/") for origin in settings.MONAI_LABEL_CORS_ORIGINS]
    if origins:
        server.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    hosts = os.environ.get("MONAI_EXT_LABEL_HOSTS", "").split() or LOOPBACK

    @server.middleware("http")
    async def guard(request: Request, follow: Callable[[Request], Awaitable[Response]]) -> Response:
        host = request.headers.get("host", "")
        if not is_own_host(host, hosts) or not may_act(request.method, request.headers.get("origin"), host, origins):
            return JSONResponse({"detail": "not for other web sites; see --cors and --allow-host of label-serve"}, 403)
        return await follow(request)

    server.add_exception_handler(InputError, _told)
    server.add_exception_handler(MONAILabelException, _told)
    server.add_exception_handler(Exception, _told)
    if settings.MONAI_LABEL_AUTH_ENABLE:
        server.include_router(login.router)
    for router in (info.router, checked_routes.router, datastore_routes.router, other_routes.router):
        server.include_router(router)
    return server


async def _told(request: Request, error: Exception) -> JSONResponse:
    """Answer with the sentence of an error that the client can mend, and with nothing of any other."""
    ours = input_error_in(error)
    if ours is not None:
        return JSONResponse({"detail": str(ours), "code": ours.code}, 400)
    if isinstance(error, MONAILabelException):
        return JSONResponse({"detail": error.msg}, 400)
    logging.getLogger("monai_ext").error("the server failed at %s", request.url.path, exc_info=error)
    return JSONResponse({"detail": "the server failed; its log tells why"}, 500)


app = build()
