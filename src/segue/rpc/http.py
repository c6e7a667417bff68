"""The HTTP transport: a JSON body to a gRPC servicer's method and back, so that both transports give one answer.

Bodies are the protos' own JSON (ProtoJSON, protobuf.dev/programming-guides/json), with the field names of the protos.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message

from segue.errors import InvalidInput
from segue.rpc import errors

Request = TypeVar("Request", bound=Message)


async def call(
    method: Callable[[Request, Any], Awaitable[Message]], request: Request, body: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Ask `method` what `body` says.

    Args:
        method: a servicer's method.
        request: an empty request of its type, which is filled from `body`.
        body: the request as JSON.

    Returns:
        The HTTP status and the JSON of the answer, or of the error by the one table of errors.
    """
    try:
        answer = await method(_parse(body, request), None)
    except Exception as error:  # noqa: BLE001 - nothing may pass by the table
        return errors.http(error)
    return 200, MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _parse(body: dict[str, Any], request: Request) -> Request:
    try:
        return ParseDict(body, request)
    except (ParseError, RecursionError) as error:
        raise InvalidInput.because("request", "is not the JSON of this request; see protos/segue/v1") from error
