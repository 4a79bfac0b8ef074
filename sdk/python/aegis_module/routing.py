"""Custom routes: paths that the code answers itself."""

from dataclasses import dataclass

from wit_world.exports import routes

from .answering import answering, called, model
from .message import Message, from_headers, to_message
from .model import Response


@dataclass
class RouteRequest(Message):
    """A request to a custom route."""

    method: str
    #: The pattern of the route.
    route: str
    #: As it was sent.
    path: str
    #: As it was sent, without the question mark.
    query: str
    #: The parts in braces, decoded.
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Routes:
    """What the component exports of this."""

    def handle(self, context, request):
        with answering():
            method = request.method.name
            run = model().routes[(method, request.route)].run
            asked = RouteRequest(
                method,
                request.route,
                request.path,
                request.query,
                dict(request.params),
                from_headers(request.headers),
                request.body,
            )
            response = called(run, asked, context)
            if not isinstance(response, Response):
                response = Response(response)
            headers, body = to_message(response.headers, response.body)
            return routes.Response(response.status, headers, body)
